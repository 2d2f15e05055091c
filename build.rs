//! Builds the library that `isolith verify` preloads to shift a step's clock. Without a compiler that can make
//! shared libraries it is left empty, and that one variation does not apply.

use std::path::Path;

fn main() {
    let source = "src/sandbox/clock.c";
    println!("cargo::rerun-if-changed={source}");
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let library = Path::new(&out).join("clock.so");
    let built = cc::Build::new().cargo_metadata(false).try_get_compiler().is_ok_and(|compiler| {
        let mut command = compiler.to_command();
        command.args(["-shared", "-fPIC", "-O2", "-nostdlib", "-ffreestanding", "-fno-stack-protector"]);
        command.args(["-Wl,-s", "-Wl,--build-id=none", "-o"]).arg(&library).arg(source);
        command.status().is_ok_and(|status| status.success())
    });
    if !built {
        println!("cargo::warning=cannot build {source}: `isolith verify` will not vary the clock");
        std::fs::write(&library, []).expect("OUT_DIR can be written to");
    }
}
