//! What the compiler made of the kernels: this test disassembles its own release build.
//!
//! A kernel's body is generic and becomes vector code only because everything below the `#[target_feature]`
//! entry is inlined into it. When one call is not, the program still works, many times slower, and nothing says
//! so. Here it is an error: the register tiles must be loops of fused multiply-adds of the right width that
//! call nothing and spill nothing, and no intrinsic and no scalar math function may be called at all.
//!
//! Only a release build tells: in a debug build the test is skipped, with a message.

mod common;

use std::collections::HashMap;
use std::hint::black_box;
use std::process::Command;

use common::{Element, activation, for_each_type};
use rachis_kernels::{
    Accumulate, Ctx, EmbedRows, Gemm, Layout, Level, Mask, MatMut, MatRef, NormRows, Scratch, SoftmaxRows,
    Weights, activate, embed_rows, gemm, layer_norm_rows, math, rms_norm_rows, softmax_rows,
};
use rachis_testkit::oracle::Activation;

/// Calls every operation for a storage type, so that it is part of this program.
fn use_everything<T: Element>(ctx: &Ctx) {
    let data = black_box(vec![T::default(); 64]);
    let mut written = vec![T::default(); 64];
    let matrix = || MatRef::new(&data, 8, 8).unwrap();
    for layout in black_box(Layout::ALL) {
        let weights = Weights { matrix: T::matrix(matrix()), layout };
        let op = Gemm::product(matrix(), weights, MatMut::new(&mut written, 8, 8).unwrap());
        gemm(ctx, &mut Scratch::new(), op).unwrap();
    }
    for norm in [layer_norm_rows, rms_norm_rows] {
        let gamma = Some(T::vector(&data[..8]));
        let out = MatMut::new(&mut written, 8, 8).unwrap();
        norm(ctx, NormRows { x: matrix(), gamma, beta: gamma, epsilon: 1e-5, out }).unwrap();
    }
    let x = MatMut::new(&mut written, 8, 8).unwrap();
    softmax_rows(ctx, SoftmaxRows { x, scale: 1.0, bias: None, mask: Mask::None }).unwrap();
    for function in Activation::ALL {
        activate(ctx, activation(function), &mut written);
    }
    let out = MatMut::new(&mut written, 8, 8).unwrap();
    let (table, accumulate) = (T::matrix(matrix()), Accumulate::Add);
    embed_rows(ctx, EmbedRows { ids: &[1; 8], table, scale: 2.0, accumulate, out }).unwrap();
    black_box(&written);
}

#[test]
fn hot_loops_are_vector_code() {
    let levels: Vec<Level> = Level::supported().collect();
    for level in &levels {
        let ctx = Ctx::new(*level).unwrap();
        for_each_type!(use_everything(&ctx));
        for function in [math::exp, math::tanh] {
            function(&ctx, &[0.5], &mut [0.0]).unwrap();
        }
    }
    if cfg!(debug_assertions) {
        println!("skipped: only a release build shows the code that will run");
        return;
    }
    let program = Program::this();
    program.assert_no_lost_inline();
    Program::assert_no_scalar_math();
    if cfg!(target_arch = "x86_64") {
        program.assert_tile("zmm", 24);
        program.assert_tile("ymm", 12);
        program.assert_exponential("zmm");
        program.assert_exponential("ymm");
    } else if cfg!(target_arch = "aarch64") {
        program.assert_tile(".4s", 12);
    }
}

/// One instruction: its address, and its text after the address.
struct Instruction {
    at: u64,
    text: String,
}

impl Instruction {
    fn mnemonic(&self) -> &str {
        self.text.split_whitespace().next().unwrap_or("")
    }

    fn is_call(&self) -> bool {
        matches!(self.mnemonic(), "call" | "callq" | "bl" | "blr")
    }

    /// Where a jump goes: an address and the name after it in angle brackets.
    fn target(&self) -> Option<(u64, &str)> {
        let operands = self.text.split_whitespace().nth(1)?;
        // AArch64 has the register that a branch tests in front of the target.
        let address = self.text.split('<').next()?.split_whitespace().last().unwrap_or(operands);
        let name = self.text.split_once('<')?.1.strip_suffix('>')?;
        Some((u64::from_str_radix(address.trim_start_matches("0x"), 16).ok()?, name))
    }

    fn is_jump(&self) -> bool {
        let mnemonic = self.mnemonic();
        mnemonic.starts_with('j')
            || mnemonic == "b"
            || mnemonic.starts_with("b.")
            || mnemonic.starts_with("cb")
    }

    fn is_fused_multiply_add(&self, register: &str) -> bool {
        let mnemonic = self.mnemonic();
        let fused = mnemonic.starts_with("vfmadd") && mnemonic.ends_with("ps")
            || matches!(mnemonic, "vdpbf16ps" | "fmla");
        fused && self.text.contains(register)
    }

    /// Arithmetic that a register tile has no use for.
    fn is_other_arithmetic(&self) -> bool {
        const OTHERS: [&str; 11] = [
            "vaddps", "vsubps", "vmulps", "vdivps", "vmaxps", "vminps", "fadd", "fsub", "fmul", "fdiv",
            "fcmgt",
        ];
        OTHERS.contains(&self.mnemonic())
    }

    /// Whether a vector is stored on the stack; the last operand is where AT&T syntax has the destination.
    fn spills(&self) -> bool {
        self.mnemonic().starts_with("vmov") && self.text.trim_end().ends_with("(%rsp)")
            || matches!(self.mnemonic(), "str" | "stp")
                && self.text.contains('q')
                && self.text.contains("[sp")
    }
}

/// The functions of a program, by the names in its symbol table.
struct Program {
    functions: HashMap<String, Vec<Instruction>>,
}

impl Program {
    /// The running program, disassembled.
    fn this() -> Program {
        let listing = objdump(&["-d", "--no-show-raw-insn", "--section=.text"]);
        let mut functions = HashMap::new();
        let mut instructions: &mut Vec<Instruction> = functions.entry(String::new()).or_default();
        for line in listing.lines() {
            if let Some((_, name)) = line.strip_suffix(">:").and_then(|line| line.split_once(" <")) {
                instructions = functions.entry(name.to_owned()).or_default();
            } else if let Some((at, text)) = line.split_once(":\t")
                && let Ok(at) = u64::from_str_radix(at.trim(), 16)
            {
                instructions.push(Instruction { at, text: text.trim().to_owned() });
            }
        }
        assert!(functions.len() > 100, "the program has no symbols to find functions by");
        Program { functions }
    }

    /// Loops: code from the target of a jump back to that jump, with the name of the function.
    fn loops(&self) -> impl Iterator<Item = (&str, &[Instruction])> {
        self.functions.iter().flat_map(|(name, code)| {
            code.iter().enumerate().filter_map(move |(end, last)| {
                let (target, _) = last.target().filter(|(target, _)| last.is_jump() && *target <= last.at)?;
                let start = code.binary_search_by_key(&target, |instruction| instruction.at).ok()?;
                Some((name.as_str(), &code[start..=end]))
            })
        })
    }

    /// There are loops whose last stretch without a jump is `count` (or a multiple, unrolled) fused multiply-adds
    /// on such registers and no other arithmetic, and which do little else: register tiles. They call nothing and
    /// spill no vector.
    fn assert_tile(&self, register: &str, count: usize) {
        let mut found = 0;
        for (name, body) in self.loops() {
            let inner = &body[..body.len() - 1];
            let start = inner.iter().rposition(Instruction::is_jump).map_or(0, |jump| jump + 1);
            let stretch = &inner[start..];
            let fused = stretch.iter().filter(|i| i.is_fused_multiply_add(register)).count();
            let tile = fused > 0
                && fused.is_multiple_of(count)
                && 3 * fused > body.len()
                && !stretch.iter().any(Instruction::is_other_arithmetic);
            if tile {
                let text = || body.iter().map(|i| i.text.as_str()).collect::<Vec<_>>().join("\n");
                assert!(!body.iter().any(Instruction::is_call), "{name} calls in its tile:\n{}", text());
                assert!(!stretch.iter().any(Instruction::spills), "{name} spills in its tile:\n{}", text());
                found += 1;
            }
        }
        println!("{found} loops of register tiles of {count} fused multiply-adds on {register}");
        assert!(found > 0, "no register tile of {count} fused multiply-adds on {register} registers");
    }

    /// Stretches of code without a jump or a call evaluate the exponential (its polynomial and its reduction are
    /// seven fused multiply-adds a vector) and divide by the result: the activations have them.
    fn assert_exponential(&self, register: &str) {
        let stretches = self.functions.values().flat_map(|code| code.split(|i| i.is_jump() || i.is_call()));
        let exponentials = stretches.filter(|code| {
            let divides = code.iter().any(|i| i.mnemonic() == "vdivps" && i.text.contains(register));
            divides && code.iter().filter(|i| i.is_fused_multiply_add(register)).count() >= 7
        });
        let count = exponentials.count();
        println!("{count} exponentials on {register}");
        assert!(count > 0, "no exponential on {register} registers");
    }

    /// No intrinsic has become a function. Those that ask the processor what it can do may be.
    fn assert_no_lost_inline(&self) {
        let lost = |name: &&String| {
            name.contains("core_arch") && !["xgetbv", "cpuid"].iter().any(|query| name.contains(query))
        };
        if let Some(intrinsic) = self.functions.keys().find(lost) {
            let calls = |code: &&Vec<Instruction>| {
                code.iter().any(|i| i.is_call() && i.target().is_some_and(|(_, called)| called == intrinsic))
            };
            let callers = self.functions.iter().filter(|(_, code)| calls(code)).map(|(name, _)| name);
            panic!("{intrinsic} was not inlined into {:?}", callers.collect::<Vec<_>>());
        }
    }

    /// Nothing computes a function one number at a time: the program has and imports no such function.
    fn assert_no_scalar_math() {
        const SCALAR: [&str; 9] = ["expf", "tanhf", "erff", "erfcf", "fmaf", "fma", "exp", "tanh", "erf"];
        for line in objdump(&["-t"]).lines() {
            let symbol = line.split_whitespace().last().unwrap_or("");
            let name = symbol.split('@').next().unwrap_or(symbol);
            assert!(!SCALAR.contains(&name), "the program uses {name}: {line}");
        }
    }
}

/// What objdump says about the running program.
fn objdump(options: &[&str]) -> String {
    let objdump = std::env::var_os("OBJDUMP").unwrap_or_else(|| "objdump".into());
    let output = Command::new(&objdump)
        .args(options)
        .arg(std::env::current_exe().unwrap())
        .output()
        .unwrap_or_else(|error| panic!("{} from binutils is needed: {error}", objdump.display()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
