//! Cases about single reads.

use bytes::Bytes;
use raftstore_proto::Cf;

use super::super::case::{Verdict, ensure, same};
use super::super::fixture::KvFixture;
use super::{put, with_engine, write};
use crate::{Durability, KvEngine, Reader, WriteBatch};

/// A key never written has no value, in any family, before and after other writes.
pub(super) fn absent_key_is_none<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        for cf in Cf::ALL {
            same("empty engine", &engine.get(cf, b"k")?, &None)?;
        }
        put(engine, Cf::Default, b"k", b"v")?;
        for key in [&b""[..], b"j", b"k\0", b"kk", b"l"] {
            same("neighbour of a key", &engine.get(Cf::Default, key)?, &None)?;
        }
        Ok(())
    })
}

/// What was written is read, as soon as the write returned.
pub(super) fn value_is_read_back<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        for durability in [Durability::Buffered, Durability::Synced] {
            for cf in Cf::ALL {
                let value = format!("{cf} {durability:?}");
                write(engine, durability, |batch| batch.put(cf, b"k", value.as_bytes()))?;
                same("value", &engine.get(cf, b"k")?, &Some(Bytes::from(value)))?;
            }
        }
        Ok(())
    })
}

/// A second write of a key replaces the first.
pub(super) fn overwrite_gives_newest_value<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        for value in ["first", "second, longer", "3"] {
            put(engine, Cf::Write, b"k", value.as_bytes())?;
            same("value", &engine.get(Cf::Write, b"k")?, &Some(Bytes::from(value)))?;
        }
        Ok(())
    })
}

/// A value of no bytes is a value, not an absence.
pub(super) fn empty_value_is_a_value<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        put(engine, Cf::Lock, b"k", b"")?;
        same("empty value", &engine.get(Cf::Lock, b"k")?, &Some(Bytes::new()))
    })
}

/// The key of no bytes is a key like others, and the first.
pub(super) fn empty_key_is_a_key<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        put(engine, Cf::Default, b"", b"v")?;
        put(engine, Cf::Default, b"\0", b"w")?;
        same("empty key", &engine.get(Cf::Default, b"")?, &Some(Bytes::from("v")))?;
        write(engine, Durability::Buffered, |batch| batch.delete(Cf::Default, b""))?;
        same("deleted empty key", &engine.get(Cf::Default, b"")?, &None)?;
        same("its neighbour", &engine.get(Cf::Default, b"\0")?, &Some(Bytes::from("w")))
    })
}

/// A deleted key has no value; deleting an absent key is no error.
pub(super) fn deleted_key_is_none<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        put(engine, Cf::Default, b"k", b"v")?;
        for _ in 0..2 {
            write(engine, Durability::Buffered, |batch| batch.delete(Cf::Default, b"k"))?;
            same("deleted key", &engine.get(Cf::Default, b"k")?, &None)?;
        }
        put(engine, Cf::Default, b"k", b"w")?;
        same("written again", &engine.get(Cf::Default, b"k")?, &Some(Bytes::from("w")))
    })
}

/// One key may have another value, or none, in each family.
pub(super) fn families_are_separate<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        for cf in Cf::ALL {
            put(engine, cf, b"k", cf.name().as_bytes())?;
        }
        write(engine, Durability::Buffered, |batch| batch.delete(Cf::Lock, b"k"))?;
        for cf in Cf::ALL {
            let want = (cf != Cf::Lock).then(|| Bytes::from(cf.name()));
            same(cf.name(), &engine.get(cf, b"k")?, &want)?;
        }
        Ok(())
    })
}

/// Keys and values are bytes: zeros, ones, no text needed, compared as unsigned.
pub(super) fn keys_and_values_are_any_bytes<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        for byte in 0..=u8::MAX {
            put(engine, Cf::Default, &[byte], &[byte, 0, byte])?;
            put(engine, Cf::Default, &[byte, 0xFF, 0], &[0xFF, byte])?;
        }
        for byte in 0..=u8::MAX {
            let value = Some(Bytes::from(vec![byte, 0, byte]));
            same("short key", &engine.get(Cf::Default, &[byte])?, &value)?;
            let value = Some(Bytes::from(vec![0xFF, byte]));
            same("long key", &engine.get(Cf::Default, &[byte, 0xFF, 0])?, &value)?;
        }
        Ok(())
    })
}

/// A value of a mebibyte and a key of some kibibytes are read back whole.
pub(super) fn large_value_is_read_back<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        let value: Vec<u8> =
            (0..1_u32 << 20).map(|at| at.to_le_bytes()[usize::from(at % 3 == 0)]).collect();
        let key = vec![0x6B; 2048];
        put(engine, Cf::Default, &key, &value)?;
        let got = engine.get(Cf::Default, &key)?;
        ensure!(got.as_deref() == Some(&value[..]), "a large value came back changed");
        Ok(())
    })
}

/// A write through one handle is seen through its clones.
pub(super) fn clones_name_one_engine<F: KvFixture>(make: &dyn Fn() -> F) -> Verdict {
    with_engine(make, |engine| {
        let other = engine.clone();
        put(engine, Cf::Default, b"k", b"v")?;
        same("through the clone", &other.get(Cf::Default, b"k")?, &Some(Bytes::from("v")))?;
        put(&other, Cf::Default, b"k", b"w")?;
        drop(other);
        same("from the clone", &engine.get(Cf::Default, b"k")?, &Some(Bytes::from("w")))?;
        ensure!(!engine.name().is_empty(), "an engine has a name");
        Ok(())
    })
}
