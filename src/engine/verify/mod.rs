mod setting;
pub use setting::{Outside, Setting};
