//! The program: its allocator, and one call into the command line.

/// Many small short-lived buffers on several threads, the router's main load,
/// are what the system's allocator is slowest at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    pushyard::cli::main()
}
