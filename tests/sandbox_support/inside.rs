//! What a step sees.

use super::{Fixture, output};

pub fn runs_a_command(f: &Fixture) {
    let executor = f.executor();
    println!(
        "{}",
        output(
            f,
            &executor,
            "id; cat /proc/self/mountinfo; ls -la / /dev /proc/self/fd /tmp /run; cat /proc/uptime; echo $$; ps; env; cat /proc/1/cmdline; cat /proc/self/status; ip a; ls -l /proc/1/fd"
        )
    );
}
