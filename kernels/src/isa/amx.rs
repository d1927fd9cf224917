//! AMX: detection of the tile unit, the operating system's permission to use it, and a thread's tile registers.
//!
//! The tile state is 8 KiB a thread, so Linux hands it out only to processes that ask. Asking is sticky and
//! harmless to a process that never touches a tile: the state is allocated at a thread's first tile
//! instruction.

use core::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use core::marker::PhantomData;

use super::avx512_bf16::Bf16Pairs;

/// The proof that AMX-TILE and AMX-BF16 instructions may be executed by this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amx {
    pairs: Bf16Pairs,
}

impl Amx {
    /// The token, if the processor has both features and the operating system grants the state.
    pub(crate) fn try_new() -> Option<Amx> {
        static GRANTED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        // The conversions of AVX512-BF16 go with the tile unit.
        let pairs = Bf16Pairs::try_new()?;
        GRANTED.get_or_init(|| processor_has_amx() && system_grants_tiles()).then_some(Amx { pairs })
    }

    /// The instructions on pairs of bfloat16, which come with the tile unit.
    pub(crate) fn pairs(self) -> Bf16Pairs {
        self.pairs
    }
}

/// The tile registers of this thread, eight of 16 rows x 64 bytes, until dropped.
///
/// By the calling convention no function keeps tile registers or their configuration across a call, so nothing of
/// a caller's is lost; releasing them lets the processor save less at a context switch and sleep deeper.
pub(crate) struct TileRegisters {
    /// The registers are a thread's.
    _not_send: PhantomData<*const ()>,
}

/// The memory form of a tile configuration.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl TileRegisters {
    /// Configures the tile registers.
    pub(crate) fn configure(_proof: Amx) -> TileRegisters {
        static CONFIG: Config = {
            let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
            let mut i = 0;
            while i < 8 {
                (row_bytes[i], rows[i]) = (64, 16);
                i += 1;
            }
            Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
        };
        // SAFETY: the token is the proof that the instruction exists and is permitted; the configuration is a
        // valid one of palette 1.
        unsafe { core::arch::asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(readonly, nostack)) };
        TileRegisters { _not_send: PhantomData }
    }
}

impl Drop for TileRegisters {
    fn drop(&mut self) {
        // SAFETY: a value exists only after `configure`.
        unsafe { core::arch::asm!("tilerelease", options(nomem, nostack)) };
    }
}

/// Rounds of [`peak`], and the floating-point operations of each.
pub(crate) const PEAK_ROUNDS: usize = 20_000;
pub(crate) const PEAK_FLOPS: usize = 4 * 2 * 16 * 16 * 32;

/// Products of tiles that wait for nothing: four running sums, as in a matrix product. The operands are numbers
/// like any: zeros would draw less power, and run at a clock that no product reaches.
pub(crate) fn peak(proof: Amx) {
    let mut state = 0x9e37_79b9_u32;
    let data: [u16; 2 * 16 * 32] = core::array::from_fn(|_| {
        state = state.wrapping_mul(0x915f_77f5).wrapping_add(1);
        // A sign, an exponent of 2^-1 or below, seven bits of mantissa.
        (state >> 16) as u16 & 0xbfff | 0x3c00
    });
    let _registers = TileRegisters::configure(proof);
    // SAFETY: the registers are configured, set before use, and not kept; the data has two tiles.
    unsafe {
        core::arch::asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "tileloadd tmm4, [{data} + {row}]",
            "tileloadd tmm5, [{data} + {row} + 1024]",
            "tileloadd tmm6, [{data} + {row} + 1024]",
            "tileloadd tmm7, [{data} + {row}]",
            "2:",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "dec {rounds}",
            "jnz 2b",
            rounds = inout(reg) PEAK_ROUNDS => _,
            data = in(reg) data.as_ptr(),
            row = in(reg) 64usize,
            options(readonly, nostack),
        );
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
