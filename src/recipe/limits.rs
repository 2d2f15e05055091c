//! `limits`: what a step may use up.

use super::reader::{Table, Value};
use crate::config;
use crate::sandbox::Limits;

/// Reads the limits of a step.
pub fn read(step: &mut Table<'_>) -> Limits {
    let hint = "write `limits = { memory = \"2GiB\", time = \"30m\" }`";
    let Some(mut table) = step.take("limits").and_then(|value| value.table(hint)) else {
        return Limits::default();
    };
    let limits = Limits {
        memory: table.take("memory").and_then(|value| size(&value)),
        cpus: table.take("cpus").and_then(|value| cpus(&value)),
        pids: table.take("pids").and_then(|value| pids(&value)),
        time: table.take("time").and_then(|value| time(&value)),
        disk: table.take("disk").and_then(|value| size(&value)),
    };
    table.finish();
    limits
}

fn size(value: &Value<'_>) -> Option<u64> {
    let text = value.string()?;
    let written = value.cx.expand(&text)?;
    let size = config::size(&written);
    if size.is_none() {
        let hint = "write a number above zero and a unit, such as \"2GiB\", \"512MiB\" or \"1.5GB\"";
        value.cx.error(&text.span, format!("`{}`: `{written}` is not a size", value.key), hint);
    }
    size
}

/// A length of time, in seconds.
pub fn time(value: &Value<'_>) -> Option<u64> {
    let text = value.string()?;
    let written = value.cx.expand(&text)?;
    let time = config::time(&written);
    if time.is_none() {
        let hint = "write hours, minutes and seconds above zero, such as \"1h30m\" or \"90s\"";
        value.cx.error(&text.span, format!("`{}`: `{written}` is not a length of time", value.key), hint);
    }
    time
}

fn cpus(value: &Value<'_>) -> Option<f64> {
    let cpus = value.number()?;
    let good = cpus.is_finite() && cpus > 0.0;
    if !good {
        value.cx.error(&value.span, "`cpus` must be above zero", "write a number such as 2 or 0.5");
    }
    good.then_some(cpus)
}

fn pids(value: &Value<'_>) -> Option<u64> {
    let pids = u64::try_from(value.integer()?).ok().filter(|pids| *pids > 0);
    if pids.is_none() {
        value.cx.error(&value.span, "`pids` must be above zero", "write a whole number such as 512");
    }
    pids
}
