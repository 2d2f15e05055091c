//! `isolith run`: a command in what was built.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use super::remotes::RemoteArgs;
use super::request::{RecipeArgs, parse_set};
use super::target::{self, Runnable};
use super::{Context, attend};
use crate::config::Progress;
use crate::engine::{Ran, RunOptions, What};
use crate::error::{Class, Error, Result};
use crate::key::Network;
use crate::path::GuestPath;
use crate::recipe::{is_reserved, size, time};
use crate::sandbox::{Bind, Limits, Ports, Protocol, Publish};
use crate::sys::signals;

/// So many binds at most.
const MOST_BINDS: usize = 64;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "What the command writes is thrown away, but for what it writes into a --bind. The exit code is the \
    command's, 128 and a signal's number when one ended it. Signals are passed on; the third SIGINT or SIGTERM kills."
)]
pub(super) struct Args {
    /// The recipe file (or an earlier build: RECIPE@NUMBER, @TAG), and maybe one of its outputs (default: the finished
    /// stack); or an image: oci://HOST/REPOSITORY:TAG, oci-layout:PATH[:NAME], docker-archive:FILE[:TAG]
    #[arg(value_name = "RECIPE[@BUILD][:OUTPUT]|IMAGE", value_parser = target::parse_runnable)]
    target: Runnable,
    #[command(flatten)]
    args: RecipeArgs,
    #[command(flatten)]
    remotes: RemoteArgs,
    /// Fail (exit code 4) instead of running a step
    #[arg(long)]
    fail_on_miss: bool,
    #[command(flatten)]
    how: How,
    /// How progress is shown while something has to be built
    #[arg(long, value_enum, value_name = "HOW")]
    progress: Option<Progress>,
    /// The command, or arguments for the entrypoint (default: a shell)
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// How the command runs.
#[derive(Debug, clap::Args)]
struct How {
    /// Publish a port of the command at a loopback address of this machine; port 0 takes a free one
    #[arg(short, long, value_name = "[ADDRESS:]PORT:PORT[/tcp|/udp]", value_parser = parse_publish)]
    publish: Vec<Publish>,
    /// Which network the command has: a loopback of its own, or the machine's
    #[arg(long, value_name = "none|host", default_value = "none", value_parser = parse_network)]
    network: Network,
    /// Show a directory or file of this machine
    #[arg(short, long, value_name = "PATH:AT[:ro]", value_parser = parse_bind)]
    bind: Vec<Bind>,
    /// An empty directory in memory
    #[arg(long, value_name = "AT", value_parser = parse_place)]
    tmpfs: Vec<GuestPath>,
    /// Set a variable of the environment
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse_set)]
    env: Vec<(String, String)>,
    /// Who runs it: numbers, names of the stack, or `caller` for the owner of your files in a --bind
    #[arg(short, long, value_name = "USER[:GROUP]|caller")]
    user: Option<String>,
    /// Where it starts
    #[arg(short, long, value_name = "DIR", value_parser = parse_dir)]
    workdir: Option<GuestPath>,
    /// The program in front of the command's arguments; an empty one is none
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Let nothing be written but to /tmp, /run and what is mounted
    #[arg(long)]
    read_only: bool,
    /// Most memory it may use
    #[arg(long, value_name = "SIZE", value_parser = |text: &str| size(text).ok_or("expected a size such as 512MiB"))]
    memory: Option<u64>,
    /// Most cpus it may use
    #[arg(long, value_name = "N", value_parser = parse_cpus)]
    cpus: Option<f64>,
    /// Most processes and threads it may have
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pids: Option<u64>,
    /// How long it may take
    #[arg(long, value_name = "TIME", value_parser = |text: &str| time(text).ok_or("expected a time such as 90s or 1h30m"))]
    time: Option<u64>,
    /// How much it may write to its root
    #[arg(long, value_name = "SIZE", value_parser = |text: &str| size(text).ok_or("expected a size such as 4GiB"))]
    disk: Option<u64>,
}

pub(super) fn run(context: &Context, args: Args) -> Result<ExitCode> {
    let settings = context.settings(None, args.progress)?;
    let (target, output, image) = args.target.split();
    if image.is_some() && (!args.args.set.is_empty() || args.args.locked) {
        return Err(Error::usage("an image has neither arguments nor a lock file")
            .hint("leave `--set` and `--locked` away; `oci://…@sha256:…` pins an image"));
    }
    let mut request = args.args.request(target, &settings)?;
    if let Some(image) = image {
        request.what = What::Image(image);
    }
    request.fail_on_miss = args.fail_on_miss;
    let how = args.how;
    check(&how)?;
    let options = RunOptions {
        output,
        command: args.command,
        entrypoint: how.entrypoint.map(|program| if program.is_empty() { Vec::new() } else { vec![program] }),
        env: how.env,
        user: how.user,
        workdir: how.workdir,
        host_network: how.network == Network::Host,
        binds: how.bind,
        tmpfs: how.tmpfs,
        read_only: how.read_only,
        limits: Limits { memory: how.memory, cpus: how.cpus, pids: how.pids, time: how.time, disk: how.disk },
    };
    let ports = if how.publish.is_empty() { None } else { Some(Ports::bind(&how.publish)?) };
    let remotes = args.remotes.remotes(context, &settings)?;
    let mut session = context.session(&settings)?.with_remotes(remotes);
    session.prepare()?;
    if let Some(ports) = ports.as_ref().filter(|_| !context.global.quiet) {
        for Publish { host, guest, protocol } in ports.published() {
            let protocol = if *protocol == Protocol::Tcp { "tcp" } else { "udp" };
            context.ui.note(&format!("published: {host} -> {guest}/{protocol}"));
        }
    }
    let (mut with, terminal) = attend::lend(context)?;
    with.ports = ports;
    with.signals = Some(Box::new(|| Ok(signals::pass_on()?)));
    // Standard output is the command's.
    let mode =
        if settings.progress.value == Progress::Json { Progress::Quiet } else { settings.progress.value };
    let progress = context.ui.progress(mode, session.cancel_flag());
    let ran = session.run(&request, &options, with, progress.as_ref());
    if let Some(terminal) = terminal {
        terminal.finish();
    }
    drop(progress);
    match ran? {
        Ran::Ended(outcome) => Ok(ExitCode::from(attend::outcome(context, &outcome))),
        Ran::NotBuilt(failure) => {
            context.ui.failure(&failure, &context.surroundings.env.cwd, &[]);
            Ok(ExitCode::from(Class::Step.exit_code()))
        }
    }
}

/// What only shows when the options are seen together.
fn check(how: &How) -> Result<()> {
    if how.network == Network::Host && !how.publish.is_empty() {
        return Err(Error::usage("with `--network host` every port is the machine's already")
            .hint("leave `--publish` away"));
    }
    if how.bind.len() > MOST_BINDS {
        return Err(Error::usage(format!("there are more than {MOST_BINDS} binds"))
            .hint("show a directory that holds several of them"));
    }
    let mut places: Vec<&GuestPath> = how.bind.iter().map(|bind| &bind.at).chain(&how.tmpfs).collect();
    places.sort();
    match places.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::usage(format!("two things are to be mounted at `{}`", pair[0]))
            .hint("give each a place of its own")),
        None => Ok(()),
    }
}

fn parse_network(text: &str) -> Result<Network, String> {
    match text {
        "none" => Ok(Network::None),
        "host" => Ok(Network::Host),
        _ => Err("expected `none` or `host`".to_string()),
    }
}

fn parse_cpus(text: &str) -> Result<f64, String> {
    let cpus = text.parse().ok().filter(|cpus: &f64| cpus.is_finite() && *cpus > 0.0);
    cpus.ok_or_else(|| "expected a number above zero such as 2 or 0.5".to_string())
}

fn parse_dir(text: &str) -> Result<GuestPath, String> {
    GuestPath::parse(text).map_err(|why| why.to_string())
}

/// Where something is to be mounted.
fn parse_place(text: &str) -> Result<GuestPath, String> {
    let at = parse_dir(text)?;
    match is_reserved(&at) {
        true => Err("choose another place; /, /proc, /dev and /sys are the sandbox's own".to_string()),
        false => Ok(at),
    }
}

fn parse_bind(text: &str) -> Result<Bind, String> {
    let (rest, read_only) = match text.rsplit_once(':') {
        Some((rest, "ro")) => (rest, true),
        Some((rest, "rw")) => (rest, false),
        _ => (text, false),
    };
    let (host, at) = rest.rsplit_once(':').ok_or("expected PATH:AT or PATH:AT:ro")?;
    let at = parse_place(at)?;
    let host = PathBuf::from(host).canonicalize().map_err(|why| format!("`{host}`: {why}"))?;
    Ok(Bind { host, at, read_only })
}

fn parse_publish(text: &str) -> Result<Publish, String> {
    let wrong = || "expected PORT:PORT, such as 8080:80, 127.0.0.1:8080:80 or 5353:53/udp".to_string();
    let (rest, protocol) = match text.rsplit_once('/') {
        Some((rest, "tcp")) => (rest, Protocol::Tcp),
        Some((rest, "udp")) => (rest, Protocol::Udp),
        Some(_) => return Err(wrong()),
        None => (text, Protocol::Tcp),
    };
    let (rest, guest) = rest.rsplit_once(':').ok_or_else(wrong)?;
    let guest = guest.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
    let (address, host) = match rest.rsplit_once(':') {
        None => (IpAddr::from(Ipv4Addr::LOCALHOST), rest),
        Some(("localhost", host)) => (IpAddr::from(Ipv4Addr::LOCALHOST), host),
        Some((address, host)) => {
            let address = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
            (address.parse().map_err(|_| wrong())?, host)
        }
    };
    if !address.is_loopback() {
        return Err("ports are published at loopback addresses only: 127.0.0.1 or [::1]".to_string());
    }
    let host = SocketAddr::new(address, host.parse().map_err(|_| wrong())?);
    Ok(Publish { host, guest, protocol })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        let publish = |text: &str| {
            parse_publish(text).map(|p| (p.host.to_string(), p.guest, p.protocol == Protocol::Udp))
        };
        assert_eq!(publish("8080:80"), Ok(("127.0.0.1:8080".into(), 80, false)));
        assert_eq!(publish("127.0.0.2:0:53/udp"), Ok(("127.0.0.2:0".into(), 53, true)));
        assert_eq!(publish("[::1]:1:2/tcp"), Ok(("[::1]:1".into(), 2, false)));
        assert_eq!(publish("localhost:1:2"), Ok(("127.0.0.1:1".into(), 2, false)));
        for wrong in
            ["80", "", ":", "1:0", "x:1", "1:x", "70000:1", "1:2/sctp", "0.0.0.0:1:2", "[::]:1:2", "a:1:2"]
        {
            assert!(parse_publish(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn binds() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().canonicalize().unwrap();
        let shown = host.to_str().unwrap();
        let bind = |rest: &str| parse_bind(&format!("{shown}{rest}"));
        let at = |at: &str| GuestPath::parse(at).unwrap();
        assert_eq!(bind(":/x"), Ok(Bind { host: host.clone(), at: at("/x"), read_only: false }));
        assert_eq!(bind(":/x/y:ro"), Ok(Bind { host: host.clone(), at: at("/x/y"), read_only: true }));
        assert_eq!(bind(":/x:rw"), bind(":/x"));
        for wrong in ["", ":", ":x", ":/", ":/proc/x", ":/dev", ":/sys", ":/a/../b", "/none:/x"] {
            assert!(bind(wrong).is_err(), "{wrong}");
        }
    }
}
