//! A pickle interpreter that runs no code.
//!
//! A Python pickle is a program for a small stack machine that can call any function. This interpreter knows the
//! opcodes that `torch.save` writes (protocols 2 to 5), builds plain values, and passes every global name to a
//! [`Globals`] that accepts only a few harmless constructors.
//!
//! Containers live in an arena and values refer to them by number, so that neither cycles nor nesting of any depth can
//! exhaust the stack or leak. All memory is first deducted from a [`Budget`]: a pickle inside a zip archive may be a
//! thousand times longer than the file.
//!
//! Opcodes: CPython's `Lib/pickletools.py`.

use std::collections::HashMap;
use std::rc::Rc;

use super::WeightsError;
use super::budget::Budget;

/// Bytes of a value in a growing vector: the old one, and the new one of twice the size.
const VALUE: usize = 3 * 24;
/// Bytes of a container besides its items.
const CONTAINER: usize = 3 * 24;
/// Bytes of a key and a value in a growing dict.
const PAIR: usize = 2 * VALUE;
/// Bytes of an entry of the memo.
const MEMO: usize = 128;
/// Bytes of a text or object besides its content.
const OBJECT: usize = 192;
/// The longest name of a module, function or tensor.
pub(super) const MAX_NAME: usize = 4096;

/// The most arguments of any allowed function; a call copies them.
const MAX_ARGUMENTS: usize = 16;

/// A value on the machine's stack. Containers and objects are indices into the arenas of [`Heap`].
#[derive(Clone, Debug)]
pub(super) enum Value<G, O> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits, little-endian two's complement.
    Long(Rc<[u8]>),
    Float,
    Str(Rc<str>),
    Bytes,
    Tuple(usize),
    List(usize),
    Dict(usize),
    Global(G),
    Object(Rc<O>),
}

/// A key and its value.
pub(super) type Pair<G, O> = (Value<G, O>, Value<G, O>);

/// The containers that values refer to.
#[derive(Debug)]
pub(super) struct Heap<G, O> {
    pub(super) sequences: Vec<Vec<Value<G, O>>>,
    pub(super) dicts: Vec<Vec<Pair<G, O>>>,
}

impl<G, O> Heap<G, O> {
    fn sequence(&mut self, items: Vec<Value<G, O>>) -> usize {
        self.sequences.push(items);
        self.sequences.len() - 1
    }

    pub(super) fn dict(&mut self) -> usize {
        self.dicts.push(Vec::new());
        self.dicts.len() - 1
    }

    /// The items of a tuple; `None` for any other value.
    pub(super) fn tuple(&self, value: &Value<G, O>) -> Option<&[Value<G, O>]> {
        match value {
            Value::Tuple(index) => self.sequences.get(*index).map(Vec::as_slice),
            _ => None,
        }
    }
}

/// The globals that a pickle may refer to.
pub(super) trait Globals {
    /// An allowed name.
    type Global: Copy;
    /// The result of a call.
    type Object: Clone;

    /// Looks a name up.
    fn find(&self, module: &str, name: &str) -> Result<Self::Global, WeightsError>;

    /// "Calls" a global.
    fn call(
        &self,
        global: Self::Global,
        arguments: &[Value<Self::Global, Self::Object>],
        heap: &mut Heap<Self::Global, Self::Object>,
        budget: &mut Budget,
    ) -> Result<Value<Self::Global, Self::Object>, WeightsError>;

    /// Resolves a reference to something outside the pickle.
    fn persistent(
        &self,
        id: &Value<Self::Global, Self::Object>,
        heap: &Heap<Self::Global, Self::Object>,
    ) -> Result<Value<Self::Global, Self::Object>, WeightsError>;
}

/// The value of a pickle, its containers, and the length of the pickle in bytes.
pub(super) struct Loaded<G: Globals> {
    pub(super) value: Value<G::Global, G::Object>,
    pub(super) heap: Heap<G::Global, G::Object>,
    pub(super) length: usize,
}

/// Runs the pickle at the beginning of `bytes`, within `budget`.
pub(super) fn load<G: Globals>(bytes: &[u8], globals: &G, budget: &mut Budget) -> Result<Loaded<G>, WeightsError> {
    let heap = Heap { sequences: Vec::new(), dicts: Vec::new() };
    let (stack, marks, memo) = (Vec::new(), Vec::new(), HashMap::new());
    let mut machine = Machine { bytes, at: 0, globals, heap, stack, marks, memo, budget };
    let value = machine.run()?;
    Ok(Loaded { value, heap: machine.heap, length: machine.at })
}

type GlobalValue<G> = Value<<G as Globals>::Global, <G as Globals>::Object>;

struct Machine<'a, G: Globals> {
    bytes: &'a [u8],
    at: usize,
    globals: &'a G,
    heap: Heap<G::Global, G::Object>,
    stack: Vec<GlobalValue<G>>,
    /// Heights of the stack at the marks that are open.
    marks: Vec<usize>,
    memo: HashMap<u32, GlobalValue<G>>,
    budget: &'a mut Budget,
}

impl<'a, G: Globals> Machine<'a, G> {
    fn error(&self, reason: impl Into<String>) -> WeightsError {
        WeightsError::Pickle { at: self.at, reason: reason.into() }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], WeightsError> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else { return Err(self.error("it ends in the middle")) };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WeightsError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<usize, WeightsError> {
        Ok(usize::from(self.array::<1>()?[0]))
    }

    fn u32(&mut self) -> Result<u32, WeightsError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn length32(&mut self) -> Result<usize, WeightsError> {
        let length = self.u32()?;
        usize::try_from(length).map_err(|_| self.error("a length does not fit into memory"))
    }

    fn length64(&mut self) -> Result<usize, WeightsError> {
        let length = u64::from_le_bytes(self.array()?);
        usize::try_from(length).map_err(|_| self.error("a length does not fit into memory"))
    }

    fn line(&mut self) -> Result<String, WeightsError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
            return Err(self.error("a line has no end"));
        };
        if length > MAX_NAME {
            return Err(self.error(format!("a name has {length} bytes")));
        }
        let text = std::str::from_utf8(&rest[..length]).map(str::to_owned);
        self.at += length + 1;
        text.map_err(|_| self.error("a name is not UTF-8"))
    }

    fn text(&mut self, length: usize) -> Result<GlobalValue<G>, WeightsError> {
        let bytes = self.take(length)?;
        self.budget.spend(bytes.len() + OBJECT)?;
        let text = std::str::from_utf8(bytes).map(Rc::from);
        text.map(Value::Str).map_err(|_| self.error("a string is not UTF-8"))
    }

    fn long(&mut self, length: usize) -> Result<GlobalValue<G>, WeightsError> {
        let bytes = self.take(length)?;
        if bytes.len() > 8 {
            self.budget.spend(bytes.len() + OBJECT)?;
            return Ok(Value::Long(bytes.into()));
        }
        let sign = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
        let mut all = [sign; 8];
        all[..bytes.len()].copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(all)))
    }

    fn pop(&mut self) -> Result<GlobalValue<G>, WeightsError> {
        // Values below an open mark must not be popped.
        if self.stack.len() <= self.marks.last().copied().unwrap_or(0) {
            return Err(self.error("the stack is empty"));
        }
        self.stack.pop().ok_or_else(|| self.error("the stack is empty"))
    }

    fn top(&self) -> Result<&GlobalValue<G>, WeightsError> {
        self.stack.last().ok_or_else(|| self.error("the stack is empty"))
    }

    fn pop_mark(&mut self) -> Result<Vec<GlobalValue<G>>, WeightsError> {
        match self.marks.pop() {
            Some(height) if height <= self.stack.len() => Ok(self.stack.split_off(height)),
            _ => Err(self.error("there is no mark")),
        }
    }

    /// A new tuple or list.
    fn sequence(&mut self, items: Vec<GlobalValue<G>>) -> Result<usize, WeightsError> {
        self.budget.spend_each(items.len(), VALUE)?;
        self.budget.spend(CONTAINER)?;
        Ok(self.heap.sequence(items))
    }

    fn dict(&mut self) -> Result<GlobalValue<G>, WeightsError> {
        self.budget.spend(CONTAINER)?;
        Ok(Value::Dict(self.heap.dict()))
    }

    fn tuple(&mut self, count: usize) -> Result<GlobalValue<G>, WeightsError> {
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(self.pop()?);
        }
        items.reverse();
        Ok(Value::Tuple(self.sequence(items)?))
    }

    fn extend(&mut self, items: Vec<GlobalValue<G>>) -> Result<(), WeightsError> {
        match self.top()? {
            Value::List(index) => {
                let index = *index;
                self.budget.spend_each(items.len(), VALUE)?;
                self.heap.sequences[index].extend(items);
                Ok(())
            }
            _ => Err(self.error("items are added to what is not a list")),
        }
    }

    fn set_items(&mut self, items: Vec<GlobalValue<G>>) -> Result<(), WeightsError> {
        let Value::Dict(index) = self.top()? else {
            return Err(self.error("an item is set in what is not a dict"));
        };
        let index = *index;
        if !items.len().is_multiple_of(2) {
            return Err(self.error("a key has no value"));
        }
        self.budget.spend_each(items.len() / 2, PAIR)?;
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            self.heap.dicts[index].push((key, value));
        }
        Ok(())
    }

    fn remember(&mut self, index: u32) -> Result<(), WeightsError> {
        self.budget.spend(MEMO)?;
        let value = self.top()?.clone();
        self.memo.insert(index, value);
        Ok(())
    }

    fn recall(&self, index: u32) -> Result<GlobalValue<G>, WeightsError> {
        self.memo.get(&index).cloned().ok_or_else(|| self.error(format!("the memo has nothing under {index}")))
    }

    fn global(&self, module: &str, name: &str) -> Result<GlobalValue<G>, WeightsError> {
        self.globals.find(module, name).map(Value::Global)
    }

    fn call(&mut self) -> Result<GlobalValue<G>, WeightsError> {
        let arguments = self.pop()?;
        let callee = self.pop()?;
        let (Value::Global(global), Value::Tuple(index)) = (callee, arguments) else {
            return Err(self.error("a call needs a function and a tuple of arguments"));
        };
        let arguments = match self.heap.sequences.get(index) {
            Some(arguments) if arguments.len() <= MAX_ARGUMENTS => arguments.clone(),
            _ => return Err(self.error("a function is called with too many arguments")),
        };
        self.globals.call(global, &arguments, &mut self.heap, self.budget)
    }

    /// Runs to the end of the program.
    fn run(&mut self) -> Result<GlobalValue<G>, WeightsError> {
        loop {
            let opcode = self.array::<1>()?[0];
            let value = match opcode {
                b'.' => return self.pop(),
                // PROTO and FRAME need no action.
                0x80 => {
                    let protocol = self.u8()?;
                    if protocol > 5 {
                        return Err(self.error(format!("protocol {protocol} is not known")));
                    }
                    continue;
                }
                0x95 => {
                    self.take(8)?;
                    continue;
                }
                b'(' => {
                    self.budget.spend(VALUE)?;
                    self.marks.push(self.stack.len());
                    continue;
                }
                b'0' => {
                    self.pop()?;
                    continue;
                }
                b'1' => {
                    self.pop_mark()?;
                    continue;
                }
                b'2' => self.top()?.clone(),
                b'N' => Value::None,
                0x88 => Value::Bool(true),
                0x89 => Value::Bool(false),
                b'J' => Value::Int(i64::from(i32::from_le_bytes(self.array()?))),
                b'K' => Value::Int(i64::from(self.array::<1>()?[0])),
                b'M' => Value::Int(i64::from(u16::from_le_bytes(self.array()?))),
                0x8a => {
                    let length = self.u8()?;
                    self.long(length)?
                }
                0x8b => {
                    let length = self.length32()?;
                    self.long(length)?
                }
                b'G' => {
                    self.take(8)?;
                    Value::Float
                }
                0x8c => {
                    let length = self.u8()?;
                    self.text(length)?
                }
                b'X' => {
                    let length = self.length32()?;
                    self.text(length)?
                }
                0x8d => {
                    let length = self.length64()?;
                    self.text(length)?
                }
                // Strings of Python 2, whose encoding is unknown.
                b'U' => {
                    let length = self.u8()?;
                    self.text(length)?
                }
                b'T' => {
                    let length = self.length32()?;
                    self.text(length)?
                }
                b'C' => {
                    let length = self.u8()?;
                    self.take(length)?;
                    Value::Bytes
                }
                b'B' => {
                    let length = self.length32()?;
                    self.take(length)?;
                    Value::Bytes
                }
                0x8e | 0x96 => {
                    let length = self.length64()?;
                    self.take(length)?;
                    Value::Bytes
                }
                b')' => self.tuple(0)?,
                0x85 => self.tuple(1)?,
                0x86 => self.tuple(2)?,
                0x87 => self.tuple(3)?,
                b't' => {
                    let items = self.pop_mark()?;
                    Value::Tuple(self.sequence(items)?)
                }
                b']' | 0x8f => Value::List(self.sequence(Vec::new())?),
                b'l' | 0x91 => {
                    let items = self.pop_mark()?;
                    Value::List(self.sequence(items)?)
                }
                b'a' => {
                    let item = self.pop()?;
                    self.extend(vec![item])?;
                    continue;
                }
                b'e' | 0x90 => {
                    let items = self.pop_mark()?;
                    self.extend(items)?;
                    continue;
                }
                b'}' => self.dict()?,
                b'd' => {
                    let items = self.pop_mark()?;
                    let dict = self.dict()?;
                    self.budget.spend(VALUE)?;
                    self.stack.push(dict);
                    self.set_items(items)?;
                    continue;
                }
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.set_items(vec![key, value])?;
                    continue;
                }
                b'u' => {
                    let items = self.pop_mark()?;
                    self.set_items(items)?;
                    continue;
                }
                b'c' => {
                    let module = self.line()?;
                    let name = self.line()?;
                    self.global(&module, &name)?
                }
                0x93 => {
                    let name = self.pop()?;
                    let module = self.pop()?;
                    let (Value::Str(module), Value::Str(name)) = (module, name) else {
                        return Err(self.error("a global's name is not a string"));
                    };
                    self.global(&module, &name)?
                }
                // REDUCE and NEWOBJ: `f(*args)` and `C.__new__(C, *args)` are equivalent here.
                b'R' | 0x81 => self.call()?,
                // BUILD sets attributes, such as a state dict's `_metadata`; plain data has none.
                b'b' => {
                    self.pop()?;
                    self.top()?;
                    continue;
                }
                b'Q' => {
                    let id = self.pop()?;
                    self.budget.spend(OBJECT)?;
                    self.globals.persistent(&id, &self.heap)?
                }
                b'h' => {
                    let index = u32::from(self.array::<1>()?[0]);
                    self.recall(index)?
                }
                b'j' => {
                    let index = self.u32()?;
                    self.recall(index)?
                }
                b'q' => {
                    let index = u32::from(self.array::<1>()?[0]);
                    self.remember(index)?;
                    continue;
                }
                b'r' => {
                    let index = self.u32()?;
                    self.remember(index)?;
                    continue;
                }
                0x94 => {
                    let index = u32::try_from(self.memo.len()).map_err(|_| self.error("the memo is full"))?;
                    self.remember(index)?;
                    continue;
                }
                other => return Err(self.error(format!("the opcode {other:#04x} is not one that torch.save writes"))),
            };
            self.budget.spend(VALUE)?;
            self.stack.push(value);
        }
    }
}
