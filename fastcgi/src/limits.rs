//! How much of a peer's data is accepted.

/// Bounds on one request, and what the peer is told when it asks (GET_VALUES).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes that the parameters of one request may take: names and values, plus the two bytes that
    /// terminate each pair in memory. Default 1 MiB; nginx sends at most 32 KiB unless told otherwise.
    pub params_bytes: usize,
    /// Most parameters in one request, repeated names counted each time. Default 4096.
    pub params_count: usize,
    /// Reported as `FCGI_MAX_CONNS`: connections served at the same time, the pool's workers. Default 1.
    pub max_conns: u32,
    /// Reported as `FCGI_MAX_REQS`: requests served at the same time, the pool's workers. Default 1.
    pub max_reqs: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            params_bytes: 1 << 20,
            params_count: 4096,
            max_conns: 1,
            max_reqs: 1,
        }
    }
}
