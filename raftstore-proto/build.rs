//! Turns `proto/*.proto` into Rust without a protoc: protox reads them, rust-protobuf's
//! generator of the version that raft speaks writes the code.

use std::{env, error::Error, fs, path::Path};

use protobuf::{Message, descriptor::FileDescriptorSet};
use protobuf_codegen::Customize;

/// The packages to generate. `eraftpb` is only read: its code is raft-proto's.
const PACKAGES: [&str; 4] = ["metapb", "errorpb", "raft_serverpb", "raft_cmdpb"];
/// What only servers and clients of remote procedures speak: feature `rpc`.
const RPC_PACKAGES: [&str; 3] = ["pdpb", "kvrpcpb", "tikvpb"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=proto/eraftpb.proto");
    let mut packages = PACKAGES.to_vec();
    if env::var_os("CARGO_FEATURE_RPC").is_some() {
        packages.extend(RPC_PACKAGES);
    }
    for package in &packages {
        println!("cargo::rerun-if-changed=proto/{package}.proto");
    }
    let files: Vec<String> = packages.iter().map(|package| format!("{package}.proto")).collect();
    let encoded = protox::Compiler::new(["proto"])?
        .include_imports(true)
        .open_files(&files)?
        .encode_file_descriptor_set();
    let set = FileDescriptorSet::parse_from_bytes(&encoded)?;

    let out_dir = env::var("OUT_DIR")?;
    let out = Path::new(&out_dir);
    let customize = Customize { carllerche_bytes_for_bytes: Some(true), ..Customize::default() };
    protobuf_codegen::gen_and_write(set.get_file(), &files, out, &customize)?;
    for package in packages {
        strip_inner_attributes(&out.join(format!("{package}.rs")))?;
    }
    Ok(())
}

/// Removes what may only stand at the head of a file: the code is included into a module.
fn strip_inner_attributes(path: &Path) -> Result<(), Box<dyn Error>> {
    let kept: String = fs::read_to_string(path)?
        .lines()
        .filter(|line| !line.starts_with("#![") && !line.starts_with("//!"))
        .flat_map(|line| [line, "\n"])
        .collect();
    fs::write(path, kept)?;
    Ok(())
}
