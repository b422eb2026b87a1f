//! Messages between the supervisor and its engines, its observer and the loader. They
//! travel over a [`Channel`], with file descriptors where a message needs some: which, is
//! said beside it. Workers hold no end of these sockets while they run the application.

mod engine;
mod figures;
mod loader;
mod looks;
mod observer;
mod opcache;
mod pool;
mod worker;

pub use self::engine::{About, EngineStart, FromEngine, ToEngine};
pub use self::figures::{Figures, PoolFigures, Scraped};
pub use self::loader::{FromLoader, LoadPrograms, ProgramPart, WaitPrograms};
pub use self::looks::{
    CRASH_PATIENCE, ControllerPattern, Doom, LAST_LOOK_PATIENCE, LookBudget, PoolView, SlowStop,
};
pub use self::observer::{
    CLOCK_LEASE, Ended, FromObserver, LoggedLine, MAX_LINE_BYTES, MAX_QUESTION_BYTES, ObserverStart,
    OutputStream, ToObserver, WorkerLine, WorkerView,
};
pub use self::opcache::{OpcacheAnswer, OpcacheFigures, OpcacheView};
pub use self::pool::{AccessLog, Identity, Limits, Pages, PhpSetting, PoolSpec, Severity};
pub use self::worker::{FromWorker, PoolStatus, ProcessStatus, StatusPart};
pub use crate::channel::{Channel, ChannelError, MAX_FDS, MAX_MESSAGE_BYTES};
