//! The running program as objdump lists it, and its hot loops.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::process::Command;

/// A kind of hot loops, and how many there are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HotLoops<S> {
    /// The vector type's level: `Avx2`, `Avx512` (which has the code of the levels above it, too) or `Neon`.
    pub level: S,
    /// The kernel's type without its parameters, except that heads of attention keep the name of their products.
    pub kernel: S,
    /// What multiplies: `fma`, `vdpbf16ps`, `tdpbf16ps`, or `mul` where there is none of these.
    pub instruction: S,
    /// Such instructions in one iteration: the micro-tile times the unrolling.
    pub products: usize,
    /// Loops of this kind, over all storage types and parameters of the kernel.
    pub count: usize,
}

/// Kernels whose products are not fused with additions. Elsewhere plain products are the scaling of a few vectors.
const UNFUSED: [&str; 2] = ["EmbedRows", "RotaryRows"];

/// An instruction: its address, and its text after the address.
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

    /// The target of a jump or call: an address, and the name after it in angle brackets.
    fn target(&self) -> Option<(u64, &str)> {
        let operands = self.text.split_whitespace().nth(1)?;
        // On AArch64 the register that a branch tests precedes the target.
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

    /// Whether this works on whole vector registers and not on one number.
    fn is_on_vectors(&self) -> bool {
        ["%zmm", "%ymm", ".4s", "%tmm"].iter().any(|register| self.text.contains(register))
    }

    /// How this multiplies vectors, in the words of [`HotLoops::instruction`].
    fn product(&self) -> Option<&'static str> {
        let mnemonic = self.mnemonic();
        match mnemonic {
            _ if !self.is_on_vectors() => None,
            "tdpbf16ps" => Some("tdpbf16ps"),
            "vdpbf16ps" => Some("vdpbf16ps"),
            "vmulps" | "fmul" => Some("mul"),
            "fmla" | "fmls" => Some("fma"),
            _ if mnemonic.starts_with("vfm") || mnemonic.starts_with("vfnm") => {
                mnemonic.ends_with("ps").then_some("fma")
            }
            _ => None,
        }
    }

    /// Arithmetic that a register tile does not have.
    fn is_other_arithmetic(&self) -> bool {
        const OTHERS: [&str; 11] = [
            "vaddps", "vsubps", "vmulps", "vdivps", "vmaxps", "vminps", "fadd", "fsub", "fmul", "fdiv",
            "fcmgt",
        ];
        OTHERS.contains(&self.mnemonic())
    }

    /// Whether a vector is stored on the stack. In AT&T syntax the last operand is the destination.
    fn spills(&self) -> bool {
        self.mnemonic().starts_with("vmov") && self.text.trim_end().ends_with("(%rsp)")
            || matches!(self.mnemonic(), "str" | "stp")
                && self.text.contains('q')
                && self.text.contains("[sp")
    }
}

/// An innermost loop, from the target of its backward jump to the jump.
struct Loop<'a> {
    function: &'a str,
    body: &'a [Instruction],
}

impl Loop<'_> {
    /// How it multiplies and how often in one iteration, if it is a hot loop. A loop with several kinds of products is named
    /// by the first of tiles, pairs, fused and plain products.
    fn products(&self) -> Option<(&'static str, usize)> {
        if self.body.iter().any(Instruction::is_call) {
            return None;
        }
        ["tdpbf16ps", "vdpbf16ps", "fma", "mul"].into_iter().find_map(|instruction| {
            let count = self.body.iter().filter(|i| i.product() == Some(instruction)).count();
            (count > 0).then_some((instruction, count))
        })
    }

    /// Whether it is a register tile: mostly fused products and no other arithmetic.
    fn is_tile(&self) -> bool {
        let fused = self.products().filter(|(instruction, _)| ["vdpbf16ps", "fma"].contains(instruction));
        fused.is_some_and(|(_, count)| 3 * count > self.body.len())
            && !self.body.iter().any(Instruction::is_other_arithmetic)
    }

    fn text(&self) -> String {
        self.body.iter().map(|i| i.text.as_str()).collect::<Vec<_>>().join("\n")
    }
}

/// The functions of a program, by the names in its symbol table.
pub struct Program {
    functions: HashMap<String, Vec<Instruction>>,
}

impl Program {
    /// The running program, disassembled.
    pub fn this() -> Program {
        let listing = objdump(&["-d", "--demangle", "--no-show-raw-insn", "--section=.text"]);
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

    /// The innermost loops of all functions.
    fn loops(&self) -> impl Iterator<Item = Loop<'_>> {
        self.functions.iter().flat_map(|(function, code)| {
            let jumps = code.iter().enumerate().filter_map(|(end, last)| {
                let (target, _) = last.target().filter(|(target, _)| last.is_jump() && *target <= last.at)?;
                let start = code.binary_search_by_key(&target, |instruction| instruction.at).ok()?;
                Some((start, end))
            });
            let all: Vec<(usize, usize)> = jumps.collect();
            let innermost = all.clone().into_iter().filter(move |(start, end)| {
                !all.iter().any(|(s, e)| start <= s && e <= end && (s, e) != (start, end))
            });
            innermost.map(move |(start, end)| Loop { function, body: &code[start..=end] })
        })
    }

    /// The hot loops of the kernels are those of the table.
    pub fn assert_hot_loops(&self, expected: &[HotLoops<&str>]) {
        let mut counts = BTreeMap::new();
        for hot in self.loops() {
            let (Some((level, kernel)), Some((instruction, products))) =
                (kernel(hot.function), hot.products())
            else {
                continue;
            };
            if instruction != "mul" || UNFUSED.contains(&kernel.as_str()) {
                *counts.entry((level, kernel, instruction, products)).or_insert(0) += 1;
            }
        }
        assert!(!counts.is_empty(), "no kernel has a name: build with -Csymbol-mangling-version=v0");
        let found: Vec<HotLoops<&str>> = counts
            .iter()
            .map(|((level, kernel, instruction, products), count)| HotLoops {
                level: level.as_str(),
                kernel: kernel.as_str(),
                instruction: *instruction,
                products: *products,
                count: *count,
            })
            .collect();
        let mut expected = expected.to_vec();
        expected.sort();
        let missing: Vec<_> = expected.iter().filter(|loops| !found.contains(loops)).collect();
        let added: Vec<_> = found.iter().filter(|loops| !expected.contains(loops)).collect();
        assert!(
            missing.is_empty() && added.is_empty(),
            "expected and not found: {missing:#?}\nfound and not expected: {added:#?}\nthe table that was found:\n{}",
            table(&found)
        );
    }

    /// The kernels with sigmoids and tanh evaluate exponentials, as often as the list says: code without a jump or a call that
    /// has the seven fused multiply-adds of the exponential's reduction and polynomial, and divides.
    pub fn assert_exponentials(&self, expected: &[(&str, &str, usize)]) {
        let mut counts = BTreeMap::new();
        for (function, code) in &self.functions {
            let Some(kernel) = kernel(function) else { continue };
            let stretches = code.split(|i| i.is_jump() || i.is_call());
            let exponentials = stretches.filter(|code| {
                code.iter().any(|i| i.mnemonic() == "vdivps" && i.is_on_vectors())
                    && code.iter().filter(|i| i.product() == Some("fma")).count() >= 7
            });
            *counts.entry(kernel).or_insert(0) += exponentials.count();
        }
        let found: Vec<_> = counts.iter().filter(|(_, count)| **count > 0).collect();
        let mut text = String::new();
        for ((level, kernel), count) in &found {
            let _ = writeln!(text, "    ({level:?}, {kernel:?}, {count}),");
        }
        let same = found.len() == expected.len()
            && found.iter().all(|((level, kernel), count)| {
                expected.contains(&(level.as_str(), kernel.as_str(), **count))
            });
        assert!(same, "exponentials: expected {expected:#?}, and found\n{text}");
    }

    /// Register tiles keep their sums in registers.
    pub fn assert_tiles_do_not_spill(&self) {
        for tile in self.loops().filter(Loop::is_tile) {
            let spills = tile.body.iter().any(Instruction::spills);
            assert!(!spills, "{} spills in its tile:\n{}", tile.function, tile.text());
        }
    }

    /// There is a tile with a multiple of this many fused products on such registers: for architectures without a table.
    pub fn assert_some_tile(&self, register: &str, products: usize) {
        let found = self.loops().filter(|tile| {
            let count = tile.products().map_or(0, |(_, count)| count);
            tile.is_tile() && count.is_multiple_of(products) && tile.text().contains(register)
        });
        let count = found.count();
        println!("{count} register tiles of {products} products on {register}");
        assert!(count > 0, "no register tile of {products} products on {register} registers");
    }

    /// No intrinsic has become a function, except for those that query the processor.
    pub fn assert_no_lost_inlining(&self) {
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

    /// The program neither has nor imports a function that computes one number at a time.
    pub fn assert_no_scalar_math() {
        const SCALAR: [&str; 9] = ["expf", "tanhf", "erff", "erfcf", "fmaf", "fma", "exp", "tanh", "erf"];
        for line in objdump(&["-t"]).lines() {
            let symbol = line.split_whitespace().last().unwrap_or("");
            let name = symbol.split('@').next().unwrap_or(symbol);
            assert!(!SCALAR.contains(&name), "the program uses {name}: {line}");
        }
    }
}

/// The level and the kernel of a function with its demangled v0 name, if it is the entry of one:
/// `<path::Level>::vectorize::imp::<path::Entry<path::Level, path::Kernel<..>>>`.
fn kernel(function: &str) -> Option<(String, String)> {
    let (level, entry) = function.split_once(">::vectorize::")?;
    let level = level.rsplit("::").next()?.trim_start_matches('<');
    let arguments = entry.split_once("Entry<")?.1;
    let kernel = arguments.split_once(", ")?.1;
    // A kernel that is borrowed: `&mut path::Kernel`.
    let kernel = kernel.trim_start_matches('&').trim_start_matches("mut ");
    let mut names = kernel.split(['<', '>', ',', ' ']).map(|path| path.rsplit("::").next().unwrap_or(path));
    let name = names.next()?;
    let name = match (name, names.next()) {
        ("RunHead", Some(products)) => format!("RunHead<{products}>"),
        _ => name.to_owned(),
    };
    Some((level.to_owned(), name))
}

/// The source text of the table of hot loops.
fn table(found: &[HotLoops<&str>]) -> String {
    let mut text = format!("pub const X86_64: [HotLoops<&str>; {}] = [\n", found.len());
    for HotLoops { level, kernel, instruction, products, count } in found {
        let _ = writeln!(text, "    hot({level:?}, {kernel:?}, {instruction:?}, {products}, {count}),");
    }
    text + "];\n"
}

/// What objdump prints about the running program.
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

#[test]
fn a_kernel_is_named_by_its_symbol() {
    let entry = |entry: &str, kernel: &str| {
        let level = "rachis_kernels::arch::x86_64::avx512::Avx512";
        format!("<{level}>::vectorize::{entry}::<rachis_kernels::isa::Entry<{level}, {kernel}>>")
    };
    let named = |level: &str, name: &str| Some((level.to_owned(), name.to_owned()));
    for (kernel_type, name) in [
        ("rachis_kernels::gemm::micro_kernel::Multiply<rachis_kernels::gemm::kpack::F32Pack>", "Multiply"),
        ("&mut rachis_kernels::gemm::epilogue::Epilogue", "Epilogue"),
        ("rachis_kernels::norm::Norm<half::bfloat::bf16, true>", "Norm"),
        (
            "rachis_kernels::attention::head::RunHead<rachis_kernels::gemm::micro_kernel::RegisterTile<\
             rachis_kernels::gemm::kpack::F32Pack>>",
            "RunHead<RegisterTile>",
        ),
    ] {
        for function in ["imp", "imp_fastcall"] {
            assert_eq!(kernel(&entry(function, kernel_type)), named("Avx512", name));
        }
    }
    assert_eq!(kernel("rachis_kernels::gemm::gemm::<f32>"), None);
    assert_eq!(kernel("rachis_kernels::arch::x86_64::avx512::Avx512::vectorize::imp"), None);
}
