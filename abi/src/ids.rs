//! Small numbers of different meaning, as different types.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A worker over the supervisor's whole life; never reused, unlike its pid.
    WorkerId(u64)
}
number! {
    /// A pool of one reading of the configuration; never reused, a reload has new ones.
    PoolId(u32)
}
number! {
    /// A started engine; a restarted one has a new number.
    EngineId(u32)
}
number! {
    /// A process id in the supervisor's pid namespace.
    Pid(i32)
}
