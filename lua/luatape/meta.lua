---@meta luatape

-- What is written in C, but not an op: the words of lt.help, of the reference and of
-- lua-language-server. Never run. The ops' words are in their blocks; docs/ops.lua has their types.

-- ---- Making tensors -----------------------------------------------------------------------------

---@class luatape
---@field nn luatape.nn
---@field optim luatape.optim
---@field data luatape.data
---@field ops table<string, table> what the registry says of each op, by name
local lt = {}

--- A tensor of a number, of nested tables of equal lengths, or the copy of a tensor. Numbers become
--- the default dtype, float32; booleans bool.
---@param v number|boolean|table|luatape.tensor
---@param options { dtype: luatape.dtype?, name: string? }?
---@return luatape.tensor
function lt.tensor(v, options) end

--- A tensor that tapes watch by themselves and optimizers move. It keeps its identity: whoever holds
--- it sees assignments.
---@param v number|boolean|table|luatape.tensor copied
---@param options { name: string?, trainable: boolean?, dtype: luatape.dtype? }? trainable (default
---  true; of floats only): do tapes watch it?
---@return luatape.tensor
function lt.variable(v, options) end

--- Is x a tensor?
---@param x any
---@return boolean
function lt.is_tensor(x) end

-- ---- The engine ---------------------------------------------------------------------------------

--- Restarts the stream of random numbers, which is the same on every machine and for any number of
--- threads.
---@param seed integer
function lt.manual_seed(seed) end

--- Sets how many of the last operations are kept, tapes or not, for `tape:explain` to look back on:
--- 65,536 at first, 0 for none. Each takes about 150 bytes and holds no values.
---@param n integer
function lt.set_history(n) end

--- Sets what numbers without a dtype become: "float32" (at first) or "float64".
---@param dtype luatape.dtype
function lt.set_default_dtype(dtype) end

---@return luatape.dtype
function lt.get_default_dtype() end

--- How many threads large operations may use; results do not depend on it. At first as many as the
--- process has cores.
---@param n integer
function lt.set_num_threads(n) end

---@return integer
function lt.num_threads() end

--- Bytes of tensors: in use, the most that ever were, and kept for reuse.
---@return { live: integer, peak: integer, pooled: integer }
function lt.memory() end

--- Versions of luatape, Lua and BLIS, the SIMD level and the number of threads; a line each.
---@return string
function lt.version() end

--- Calls f(...) with no tape recording, also when it raises; returns its results.
---@param f fun(...): ...
---@return any ...
function lt.no_grad(f, ...) end

-- ---- Tensors ------------------------------------------------------------------------------------

---@alias luatape.dtype "float32"|"float64"|"int64"|"int32"|"uint8"|"bool"

--- Numbers in a row-major box of up to 8 dimensions. `t[2]`, `t[{2, 3}]` and `t[{{}, {1, 4}}]` are
--- views: an integer takes one entry of a dimension, {first, last} or {first, last, step} a range, {}
--- all of it; t[mask] is a copy. All of them can be assigned to. Ops are methods. `+ - * / ^ %`
--- and `//` work element by element with broadcasting, numbers on either side; `#t` is the first
--- size.
---@class luatape.tensor
---@field shape integer[]
---@field dtype luatape.dtype
---@field ndim integer
---@field name string? may be set
---@field trainable boolean do tapes watch it? may be set, of variables
---@field is_variable boolean
---@field is_sparse boolean is it a sparse gradient?
---@operator add(luatape.tensor|number): luatape.tensor
---@operator sub(luatape.tensor|number): luatape.tensor
---@operator mul(luatape.tensor|number): luatape.tensor
---@operator div(luatape.tensor|number): luatape.tensor
---@operator pow(luatape.tensor|number): luatape.tensor
---@operator mod(luatape.tensor|number): luatape.tensor
---@operator idiv(luatape.tensor|number): luatape.tensor
---@operator unm: luatape.tensor
---@operator len: integer
local Tensor = {}

--- The element of a tensor that has just one.
---@return number|integer|boolean
function Tensor:item() end

--- All elements in nested tables; of a 0-d tensor, the number.
---@return table|number|boolean
function Tensor:totable() end

--- One element, by as many indices as there are dimensions; negative ones count from the end.
---@param ... integer
---@return number|integer|boolean
function Tensor:get(...) end

--- Writes one element: t:set(i, j, value). As all writes in place it is not recorded, and an error
--- where a listening tape needs the old value.
---@param ... number indices, then the value
---@return luatape.tensor self
function Tensor:set(...) end

--- The number of elements.
---@return integer
function Tensor:numel() end

--- Do the elements lie row by row without gaps?
---@return boolean
function Tensor:is_contiguous() end

--- Copies a value into this tensor, with broadcasting and conversion of the dtype. Not recorded.
---@param value luatape.tensor|number|table
---@return luatape.tensor self
function Tensor:assign(value) end

--- Adds to this tensor in place. Not recorded.
---@param value luatape.tensor|number|table
---@return luatape.tensor self
function Tensor:assign_add(value) end

--- Subtracts from this tensor in place. Not recorded.
---@param value luatape.tensor|number|table
---@return luatape.tensor self
function Tensor:assign_sub(value) end

-- ---- Sparse gradients ---------------------------------------------------------------------------

--- The numbers of the rows that a sparse gradient holds, int64: from 1, in any order, a row may come
--- more than once, and then counts with the sum of its values. A copy. Sparse gradients come from
--- lt.embedding with sparse = true; other rows are zero. They have shape, dtype, # and numel as if
--- they were all there; ops refuse them, optimizers and lt.optim's clipping take them.
---@return luatape.tensor
function Tensor:indices() end

--- The values of those rows, K x D: the memory that the sparse gradient itself has.
---@return luatape.tensor
function Tensor:values() end

--- The same sparse gradient with ascending indices, each once: values of equal ones are summed, in
--- the order in which they came.
---@return luatape.tensor
function Tensor:coalesce() end

--- A sparse gradient as an ordinary tensor; a tensor that is ordinary is returned as it is.
---@return luatape.tensor
function Tensor:to_dense() end

-- ---- The tape -----------------------------------------------------------------------------------

--- A record of operations, made by lt.tape.
---@class luatape.tape
---@field listening boolean is it recording?
---@field persistent boolean
---@field consumed boolean used up by its gradient
---@field closed boolean
---@field count integer operations on it
local Tape = {}

--- From here on, records what is computed from x. Variables need no watching.
---@param x luatape.tensor float
---@return luatape.tensor x
function Tape:watch(x) end

--- Stops recording; gradients can still be asked for.
function Tape:stop() end

--- Records again.
function Tape:resume() end

--- Forgets everything and records anew.
function Tape:reset() end

--- Stops and lets go of everything that only the tape held: what `<close>` does.
function Tape:close() end

--- Calls f(...) with this tape stopped, also when it raises; returns its results.
---@param f fun(...): ...
---@return any ...
function Tape:paused(f, ...) end

--- The variables that were used while it recorded.
---@return luatape.tensor[]
function Tape:watched_variables() end
