//! The integration tests: one binary, one module per subject. Agents here are real processes.
#![expect(clippy::print_stdout, reason = "what a long test did is worth reading")]

mod arrows;
mod bad_avro;
mod bad_http;
mod bad_mqtt;
mod breaker;
mod connected;
mod contract;
mod damaged;
mod debugging;
mod drain;
mod end_to_end;
mod flume;
mod foreign;
mod gateway;
mod groups;
mod handler_sinks;
mod handler_sources;
mod hop_kills;
mod hops;
mod hostile;
mod idempotency;
mod kill;
mod lanes;
mod letters;
mod network;
mod readme;
mod reload;
mod service_sinks;
mod state;
mod tls;
mod zoo;
mod zstd;
