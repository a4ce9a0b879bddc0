//! Text in, text or captures out.
