//! The program: its allocator, and one call into the command line.

/// Many small short-lived buffers on several threads, the router's main load,
/// are what the system's allocator is slowest at. Without huge pages, which double
/// the memory and gain no speed here; version 2, whose memory grows by half as much
/// as that of version 3 while a million deliveries wait.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    pushyard::cli::main()
}
