//! Lines of real workers as log records of the requests that wrote them, and `glasspool tail`.

mod lines;
mod reading;
mod stand;
