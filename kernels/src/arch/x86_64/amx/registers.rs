//! Detection of AMX, the operating system's permission to use it, and the tile registers of a thread.
//!
//! The tile state is 8 KiB for each thread, so Linux grants it only to processes that request it. A request is permanent,
//! and harmless to a process that never executes a tile instruction: the state is allocated at a thread's first one.

use core::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use core::marker::PhantomData;
use std::time::Instant;

use crate::arch::x86_64::avx512_bf16::Bf16Pairs;

/// The proof that this process may execute AMX-TILE and AMX-BF16 instructions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amx {
    pairs: Bf16Pairs,
}

impl Amx {
    /// The token, if the processor has both features and the operating system grants the state.
    pub(in crate::arch::x86_64) fn try_new() -> Option<Amx> {
        static GRANTED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        // Packing converts with AVX512-BF16 instructions.
        let pairs = Bf16Pairs::try_new()?;
        GRANTED.get_or_init(|| processor_has_amx() && system_grants_tiles()).then_some(Amx { pairs })
    }

    /// The token of AVX512-BF16, which every processor with AMX has.
    pub(in crate::arch::x86_64) fn pairs(self) -> Bf16Pairs {
        self.pairs
    }
}

/// The tile registers of this thread, eight of 16 rows x 64 bytes, configured until dropped.
///
/// By the calling convention no function preserves tile registers or their configuration across a call, so no caller loses
/// anything. Releasing them lets the processor save less state at a context switch and enter deeper sleep states.
pub(super) struct TileRegisters {
    /// The registers belong to a thread.
    _not_send: PhantomData<*const ()>,
}

/// The operand of `ldtilecfg`.
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
    pub(in crate::arch::x86_64) fn configure(_proof: Amx) -> TileRegisters {
        static CONFIG: Config = {
            let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
            let mut i = 0;
            while i < 8 {
                (row_bytes[i], rows[i]) = (64, 16);
                i += 1;
            }
            Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
        };
        // SAFETY: the token is the proof that the instruction exists and is permitted; the configuration is valid for
        // palette 1.
        unsafe { core::arch::asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(readonly, nostack)) };
        TileRegisters { _not_send: PhantomData }
    }
}

impl Drop for TileRegisters {
    fn drop(&mut self) {
        // SAFETY: only `configure` makes a value of this type.
        unsafe { core::arch::asm!("tilerelease", options(nomem, nostack)) };
    }
}

/// Iterations of the loop that measures the peak.
const PEAK_ITERATIONS: usize = 20_000;

/// Floating-point operations of one iteration.
const PEAK_FLOPS: usize = 4 * 2 * 16 * 16 * 32;

/// Measures the peak of tile products, in GFLOP/s: products that wait for nothing, with four running sums as in a matrix
/// product. The operands are ordinary numbers: zeros would draw less power, and run at a clock that no real product
/// reaches.
pub(in crate::arch::x86_64) fn measure_gflops(amx: Amx) -> f64 {
    let start = Instant::now();
    run_peak(amx);
    (PEAK_ITERATIONS * PEAK_FLOPS) as f64 / start.elapsed().as_secs_f64() / 1e9
}

fn run_peak(proof: Amx) {
    let mut state = 0x9e37_79b9_u32;
    let data: [u16; 2 * 16 * 32] = core::array::from_fn(|_| {
        state = state.wrapping_mul(0x915f_77f5).wrapping_add(1);
        // A sign, an exponent of 2^-1 or below, seven bits of mantissa.
        (state >> 16) as u16 & 0xbfff | 0x3c00
    });
    let _registers = TileRegisters::configure(proof);
    // SAFETY: the registers are configured, and set before they are used; the data has two tiles.
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
            "dec {iterations}",
            "jnz 2b",
            iterations = inout(reg) PEAK_ITERATIONS => _,
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

/// Requests the tile data component of the extended state from Linux.
#[cfg(target_os = "linux")]
fn system_grants_tiles() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    let result: i64;
    // SAFETY: the system call takes two integers and accesses no memory of the process; the kernel clobbers only rcx and
    // r11, declared here. An unknown request returns an error code.
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

/// Other systems are not known to grant the tile state, so it is not used there.
#[cfg(not(target_os = "linux"))]
fn system_grants_tiles() -> bool {
    false
}
