//! Bounds on what bytes from outside may cost before they are decoded.
