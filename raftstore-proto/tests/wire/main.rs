//! The wire and disk forms: byte for byte against the field table, there and back for
//! everything, and no wrong value out of damaged records.

#[cfg(test)]
mod bytes_of;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod golden_command;
#[cfg(test)]
mod golden_error;
#[cfg(test)]
mod golden_message;
#[cfg(test)]
mod golden_record;
#[cfg(test)]
mod golden_response;
#[cfg(test)]
mod roundtrip;
#[cfg(test)]
mod strategies;
