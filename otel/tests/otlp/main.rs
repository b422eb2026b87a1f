//! OTLP against a collector that these tests script, and the variables that configure it.

mod answers;
mod collector;
mod documented;
mod tls;
mod variables;
