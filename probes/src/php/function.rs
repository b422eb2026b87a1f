//! `zend_function` (Zend/zend_compile.h): what runs in a frame.

use super::frames::{Defect, Kind};
use super::offsets::{Offsets, u32_at, u64_at};

/// `ZEND_INTERNAL_FUNCTION`, `ZEND_USER_FUNCTION`, `ZEND_EVAL_CODE` (Zend/zend_compile.h).
pub(super) const INTERNAL: u8 = 1;
const USER: u8 = 2;
const EVAL: u8 = 4;

/// Its fields. Those of user code are zero in an internal one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Function {
    pub(super) kind: u8,
    pub(super) name: u64,
    pub(super) scope: u64,
    opcodes: u64,
    opcode_count: u32,
    pub(super) filename: u64,
    pub(super) line_start: u32,
    /// Of an internal one, if the layout says where.
    pub(super) handler: u64,
}

impl Function {
    /// From its bytes; what is wrong with them if they are no function's.
    pub(super) fn decode(bytes: &[u8], offsets: &Offsets) -> Result<Function, Defect> {
        match Function::fields(bytes, offsets) {
            None => Err(Defect::Unreadable),
            Some(function) if matches!(function.kind, INTERNAL | USER | EVAL) => Ok(function),
            Some(_) => Err(Defect::FunctionType),
        }
    }

    fn fields(bytes: &[u8], offsets: &Offsets) -> Option<Function> {
        let common = Function {
            kind: *bytes.get(offsets.function_type)?,
            name: u64_at(bytes, offsets.function_name)?,
            scope: u64_at(bytes, offsets.scope)?,
            ..Function::default()
        };
        if common.kind == INTERNAL {
            return Some(Function {
                handler: match offsets.handler {
                    Some(handler) => u64_at(bytes, handler)?,
                    None => 0,
                },
                ..common
            });
        }
        Some(Function {
            opcodes: u64_at(bytes, offsets.opcodes)?,
            opcode_count: u32_at(bytes, offsets.opcode_count)?,
            filename: u64_at(bytes, offsets.filename)?,
            line_start: u32_at(bytes, offsets.line_start)?,
            ..common
        })
    }

    /// Whether `opline` is one of this function's.
    pub(super) fn contains(&self, opline: u64, offsets: &Offsets) -> bool {
        let size = offsets.op_len as u64;
        let Some(distance) = opline.checked_sub(self.opcodes) else {
            return false;
        };
        self.kind != INTERNAL
            && self.opcodes != 0
            && distance.is_multiple_of(size)
            && distance / size < u64::from(self.opcode_count)
    }

    /// What a frame of it runs, given who called it.
    pub(super) fn kind_of_frame(&self, caller: u64) -> Kind {
        match (self.name, self.kind) {
            (0, INTERNAL) => Kind::Fiber,
            (_, INTERNAL) => Kind::Internal,
            (0, EVAL) => Kind::Eval,
            (0, _) if caller == 0 => Kind::Main,
            (0, _) => Kind::Include,
            (_, _) => Kind::Function,
        }
    }
}
