//! The program `roam`. All of it is in the library, which tests run too.

fn main() -> std::process::ExitCode {
    roam::run()
}
