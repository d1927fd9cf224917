//! AMX: detection of the tile unit and the operating system's permission to use it.
//!
//! The tile state is 8 KiB a thread, so Linux hands it out only to processes that ask. Asking is sticky and
//! harmless to a process that never touches a tile: the state is allocated at a thread's first tile
//! instruction.

use core::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

/// The proof that AMX-TILE and AMX-BF16 instructions may be executed by this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amx {
    _proof: (),
}

impl Amx {
    /// The token, if the processor has both features and the operating system grants the state.
    pub(crate) fn try_new() -> Option<Amx> {
        static GRANTED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        GRANTED.get_or_init(|| processor_has_amx() && system_grants_tiles()).then_some(Amx { _proof: () })
    }
}

fn processor_has_amx() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    const TILE_STATE: u64 = 0b11 << 17;
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    let features = __cpuid_count(7, 0).edx;
    if features & AMX_BF16 == 0 || features & AMX_TILE == 0 {
        return false;
    }
    // SAFETY: OSXSAVE, checked above, means that XGETBV exists and register 0 may be read.
    let enabled = unsafe { _xgetbv(0) };
    enabled & TILE_STATE == TILE_STATE
}

/// Asks Linux for the tile data component of the extended state.
#[cfg(target_os = "linux")]
fn system_grants_tiles() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    let result: i64;
    // SAFETY: a system call that takes two integers and touches no memory of ours; the kernel clobbers only
    // rcx and r11, declared here. An unknown request is answered by an error code.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Elsewhere the tile state is not known to be granted, so it is not used.
#[cfg(not(target_os = "linux"))]
fn system_grants_tiles() -> bool {
    false
}
