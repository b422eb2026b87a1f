//! Lines of real workers as log records of the requests that wrote them, in JSON with their
//! ids, and `glasspool tail`.

mod ids;
mod lines;
mod reading;
mod stand;
mod supervisor;
