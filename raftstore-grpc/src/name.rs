//! The common name in a certificate.
//!
//! The certificates looked at have been verified, so their form is sound; what is read here
//! is bounded all the same, and anything unexpected means that there is no name.

/// A reader of DER: a tag, a length, and so many bytes.
struct Der<'a>(&'a [u8]);

const INTEGER: u8 = 0x02;
const OBJECT: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// The version of a certificate, which may be missing.
const VERSION: u8 = 0xa0;

/// `2.5.4.3`, the name of the attribute.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

impl<'a> Der<'a> {
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let length = if first < 0x80 {
            usize::from(first)
        } else {
            // No certificate is longer than three bytes of length can say.
            let count = usize::from(first & 0x7f);
            if !(1..=3).contains(&count) || rest.len() < count {
                return None;
            }
            let (bytes, after) = rest.split_at(count);
            rest = after;
            bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
        };
        if rest.len() < length {
            return None;
        }
        let (value, rest) = rest.split_at(length);
        self.0 = rest;
        Some((tag, value))
    }

    /// What is in the next value, which must have this tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, value)| value)
    }

    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }
}

/// The subject's common name, if there is exactly one: with several, who is meant depends on
/// who reads them.
pub(crate) fn common_name(certificate: &[u8]) -> Option<&str> {
    let mut certificate = Der(Der(certificate).expect(SEQUENCE)?);
    let mut body = Der(certificate.expect(SEQUENCE)?);
    if body.peek() == Some(VERSION) {
        body.next()?;
    }
    body.expect(INTEGER)?; // Serial number.
    body.expect(SEQUENCE)?; // Algorithm of the signature.
    body.expect(SEQUENCE)?; // Issuer.
    body.expect(SEQUENCE)?; // Validity.
    let mut subject = Der(body.expect(SEQUENCE)?);
    let mut found = None;
    while subject.peek().is_some() {
        let mut set = Der(subject.expect(SET)?);
        while set.peek().is_some() {
            let mut attribute = Der(set.expect(SEQUENCE)?);
            if attribute.expect(OBJECT)? != COMMON_NAME {
                continue;
            }
            let (tag, value) = attribute.next()?;
            if !matches!(tag, UTF8_STRING | PRINTABLE_STRING) || found.is_some() {
                return None;
            }
            found = Some(std::str::from_utf8(value).ok()?);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn certificate(change: impl FnOnce(&mut DistinguishedName)) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["host".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        change(&mut params.distinguished_name);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_common_name_of_the_subject_is_found() {
        let long = "n".repeat(300);
        for name in ["store", "st\u{f8}re", "", &long] {
            let der = certificate(|subject| {
                subject.push(DnType::OrganizationName, "store of another organisation");
                subject.push(DnType::CommonName, name);
                subject.push(DnType::CountryName, "XX");
            });
            assert_eq!(common_name(&der), Some(name));
        }
        let der = certificate(|subject| subject.push(DnType::OrganizationName, "store"));
        assert_eq!(common_name(&der), None);
    }

    #[test]
    fn two_names_are_none() {
        let custom = DnType::CustomDnType(vec![2, 5, 4, 3]);
        let der = certificate(|subject| {
            subject.push(DnType::CommonName, "store");
            subject.push(custom, "client");
        });
        // Only if both were written is there anything to refuse.
        let twice = der.windows(COMMON_NAME.len()).filter(|at| *at == COMMON_NAME).count() > 2;
        assert_eq!(common_name(&der).is_none(), twice);
    }

    #[test]
    fn what_is_cut_or_changed_is_no_certificate_or_another_name() {
        let der = certificate(|subject| subject.push(DnType::CommonName, "store"));
        for end in 0..der.len() {
            assert_eq!(common_name(&der[..end]), None, "cut at {end}");
        }
        for at in 0..der.len() {
            for value in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut changed = der.clone();
                changed[at] = value;
                // It must come to an end without panicking, whatever it says.
                let _ = common_name(&changed);
            }
        }
    }
}
