//! A binary's functions, and which source functions were inlined where.

use std::collections::HashMap;
use std::path::Path;

use addr2line::Loader;
use iced_x86::{Decoder, DecoderOptions, Instruction};
use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind};

/// A function of the binary.
pub struct Function {
    /// Its symbol, mangled.
    pub symbol: String,
    /// Its instructions in order.
    pub code: Vec<Instruction>,
}

/// A source function at an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its name without path, with generic arguments.
    pub name: String,
    /// File and line of the instruction within it.
    pub file: String,
    pub line: u32,
}

impl Frame {
    /// The name without generic arguments.
    pub fn function(&self) -> &str {
        match self.name.split_once('<') {
            Some((function, _)) if !function.is_empty() => function,
            _ => &self.name,
        }
    }
}

/// A binary with its debug information.
pub struct Binary {
    functions: Vec<Function>,
    /// Symbols by address.
    symbols: HashMap<u64, String>,
    loader: Loader,
}

impl Binary {
    /// Reads the functions whose symbols are wanted.
    pub fn read(path: &Path, wanted: impl Fn(&str) -> bool) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let (mut functions, mut symbols) = (Vec::new(), HashMap::new());
        for symbol in file.symbols().filter(|s| s.kind() == SymbolKind::Text) {
            let (Ok(name), Some(section)) = (symbol.name(), symbol.section_index()) else {
                continue;
            };
            if symbols.insert(symbol.address(), name.to_string()).is_some() || !wanted(name) {
                continue;
            }
            let section = file.section_by_index(section).unwrap();
            if section.kind() != SectionKind::Text {
                continue;
            }
            let range = section.data_range(symbol.address(), symbol.size()).unwrap();
            let code = decode(range.unwrap_or_default(), symbol.address());
            functions.push(Function { symbol: name.to_string(), code });
        }
        functions.sort_by_key(|f| f.code.first().map_or(0, Instruction::ip));
        Binary { functions, symbols, loader: Loader::new(path).unwrap() }
    }

    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// The symbol that starts at an address.
    pub fn symbol(&self, address: u64) -> Option<&str> {
        self.symbols.get(&address).map(String::as_str)
    }

    /// The source functions at an instruction, from the innermost to the one that the symbol is
    /// of.
    pub fn frames(&self, address: u64) -> Vec<Frame> {
        let mut found = Vec::new();
        let mut frames = self.loader.find_frames(address).unwrap();
        while let Some(frame) = frames.next().unwrap() {
            let name = frame.function.as_ref().map(|f| f.raw_name().unwrap().into_owned());
            let location = frame.location.as_ref();
            found.push(Frame {
                name: name.unwrap_or_default(),
                file: location.and_then(|l| l.file).unwrap_or_default().to_string(),
                line: location.and_then(|l| l.line).unwrap_or_default(),
            });
        }
        found
    }
}

/// The instructions of a function's bytes.
pub fn decode(bytes: &[u8], address: u64) -> Vec<Instruction> {
    Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).into_iter().collect()
}
