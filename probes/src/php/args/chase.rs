//! Following what is in a slot, or the name of a parameter, to what is shown of it: one
//! pointer at a time, for all arguments of all calls at once.

use super::read::Fields;
use crate::memory::{Batch, ReadError, Slice, TargetAddr, TargetMemory};
use crate::php::offsets::{Offsets, u32_at, u64_at};
use crate::php::redact;
use crate::php::text::{NAME_CAP, c_string, escaped, zend_string};

/// Bytes of a string that are shown.
const VALUE_CAP: usize = 64;
/// Steps from a slot to what is shown of it: reference, object, class, name, and one to
/// spare.
const MAX_STEPS: usize = 6;

/// Something to find out by following pointers.
#[derive(Debug)]
pub(super) struct Chase {
    step: Step,
    /// What is read for the step.
    next: Option<(u64, usize)>,
    reference: bool,
    /// Whether the value of a string is wanted.
    value: bool,
    base: &'static str,
    count: Option<u64>,
    class: Option<String>,
    /// A name or a value that has been found.
    pub(super) text: Option<String>,
}

/// What the bytes that are read next are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Reference,
    Str,
    Array,
    Object,
    Class,
    ClassName,
    Name,
    BuiltinName,
}

/// Follows all of them until none has a next step.
pub(super) fn follow<M: TargetMemory>(
    mem: &M,
    chases: &mut [Chase],
    fields: &Fields,
    offsets: &Offsets,
) -> Result<(), ReadError> {
    for _ in 0..MAX_STEPS {
        let mut batch = Batch::default();
        let slices: Vec<Option<Slice>> = chases
            .iter()
            .map(|chase| {
                let (addr, len) = chase.next?;
                let pointer = addr != 0 && addr < 1 << 48;
                pointer.then(|| batch.want(TargetAddr(addr), len))
            })
            .collect();
        if batch.is_empty() {
            break;
        }
        mem.read_batch(&mut batch)?;
        for (chase, slice) in chases.iter_mut().zip(slices) {
            chase.next = None;
            if let Some(slice) = slice {
                chase.take(batch.get(slice), fields, offsets);
            }
        }
    }
    Ok(())
}

impl Chase {
    fn new(step: Step, value: bool) -> Chase {
        Chase {
            step,
            next: None,
            reference: false,
            value,
            base: "?",
            count: None,
            class: None,
            text: None,
        }
    }

    /// What is in a slot.
    pub(super) fn value(zval: &[u8], value: bool, fields: &Fields) -> Chase {
        let mut chase = Chase::new(Step::Str, value);
        chase.look_at(zval, fields);
        chase
    }

    /// The name of a parameter.
    pub(super) fn name(at: Option<u64>, internal: bool) -> Chase {
        let (step, len) = if internal {
            (Step::BuiltinName, VALUE_CAP)
        } else {
            (Step::Name, NAME_CAP)
        };
        Chase {
            next: at.map(|at| (at, len)),
            ..Chase::new(step, true)
        }
    }

    /// Decodes a zval (Zend/zend_types.h).
    fn look_at(&mut self, zval: &[u8], fields: &Fields) {
        let (Some(word), Some(kind)) = (u64_at(zval, 0), zval.get(fields.zval_type)) else {
            return;
        };
        let mut scalar = |base, text: String| {
            self.base = base;
            self.text = self.value.then_some(text);
        };
        match kind {
            0 => self.base = "unset",
            1 => scalar("null", "null".to_owned()),
            2 => scalar("bool", "false".to_owned()),
            3 => scalar("bool", "true".to_owned()),
            4 => scalar("int", word.cast_signed().to_string()),
            5 => scalar("float", f64::from_bits(word).to_string()),
            6 => {
                self.base = "string";
                let len = if self.value { VALUE_CAP } else { 0 };
                self.then(Step::Str, Some(word), fields.string_val + len);
            }
            7 => {
                self.base = "array";
                self.then(Step::Array, Some(word), fields.array_count + 4);
            }
            8 => {
                self.base = "object";
                self.then(Step::Object, word.checked_add(fields.object_class), 8);
            }
            9 => self.base = "resource",
            10 if !self.reference => {
                self.reference = true;
                self.then(
                    Step::Reference,
                    word.checked_add(fields.reference),
                    fields.zval_size,
                );
            }
            _ => {}
        }
    }

    fn then(&mut self, step: Step, addr: Option<u64>, len: usize) {
        self.step = step;
        self.next = addr.map(|addr| (addr, len));
    }

    /// Takes what was read for the step; fewer bytes than wanted if they end.
    fn take(&mut self, bytes: &[u8], fields: &Fields, offsets: &Offsets) {
        match self.step {
            Step::Reference => self.look_at(bytes, fields),
            Step::Str => {
                self.count = u64_at(bytes, fields.string_len);
                if self.value {
                    self.text = self.count.and_then(|len| {
                        let len = usize::try_from(len).unwrap_or(usize::MAX);
                        let text = bytes.get(fields.string_val..)?.get(..len.min(VALUE_CAP))?;
                        let cut = len > VALUE_CAP;
                        Some(escaped(&redact::value(&String::from_utf8_lossy(text), cut), cut))
                    });
                }
            }
            Step::Array => self.count = u32_at(bytes, fields.array_count).map(u64::from),
            Step::Object => {
                let class = u64_at(bytes, 0).and_then(|class| class.checked_add(fields.class_name));
                self.then(Step::Class, class, 8);
            }
            Step::Class => {
                let name = u64_at(bytes, 0);
                self.then(Step::ClassName, name, fields.string_val + NAME_CAP);
            }
            Step::ClassName => self.class = zend_string(bytes, offsets, NAME_CAP),
            Step::Name => self.text = zend_string(bytes, offsets, NAME_CAP - fields.string_val),
            Step::BuiltinName => self.text = c_string(bytes, VALUE_CAP),
        }
    }

    pub(super) fn bare_kind(&self) -> &'static str {
        self.base
    }

    pub(super) fn kind(&self) -> String {
        let by = if self.reference { "&" } else { "" };
        match (&self.class, self.count) {
            (Some(class), _) => format!("{by}{class}"),
            (None, Some(count)) => format!("{by}{}({count})", self.base),
            (None, None) => format!("{by}{}", self.base),
        }
    }
}
