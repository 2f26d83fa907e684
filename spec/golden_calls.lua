-- From a golden case to a call of luatape: arguments stay positional, attributes become options,
-- dims and indices count from 1. Tables say where those are; few ops need a line of their own.
local lt = require "luatape"
local values = require "spec.values"
local programs = require "spec.golden_programs"

local calls = {}

local function set(words)
  local s = {}
  for word in words:gmatch "%S+" do s[word] = true end
  return s
end

-- ---- What counts from 0 -------------------------------------------------------------------------

-- Attributes that hold dims, or places of elements; negative ones count from the end already.
local FROM_ZERO = set [[dim dim0 dim1 dim2 dims start_dim end_dim source destination axes
  index start padding_idx ignore_index blank]]
-- ... but not here: sizes, or how many dims.
local COUNTS = { tile = "dims", tensordot = "dims" }

-- Arguments and results that hold places: labels, rows, positions.
local INDEX_ARGUMENT = {
  gather = 2, scatter = 2, scatter_add = 2, index_select = 2, index_add = 2, take_along_axis = 2,
  embedding = 1, one_hot = 1, cross_entropy = 2, nll_loss = 2, multi_margin_loss = 2,
  ctc_loss = 2, ctc_loss_log_probs = 2,
}
local INDEX_RESULT = {
  argmax = 1, argmin = 1, argsort = 1, searchsorted = 1, nonzero = 1,
  max = 2, min = 2, median = 2, cummax = 2, cummin = 2, sort = 2, topk = 2,
}

local function from_one(v)
  if type(v) ~= "table" then return v >= 0 and v + 1 or v end
  local list = {}
  for i, x in ipairs(v) do list[i] = from_one(x) end
  return list
end

local function shifted(t)
  local data = {}
  for i, v in ipairs(t.data) do data[i] = from_one(v) end
  return { shape = t.shape, dtype = t.dtype, data = data }
end

---The options of a case, as luatape takes them; nil when there are none.
local function options(case)
  local result
  for name, value in pairs(case.attrs) do
    if name ~= "pre" then
      local counts = COUNTS[case.op] == name and type(value) ~= "table" or case.op == "tile"
      result = result or {}
      result[name] = FROM_ZERO[name] and not counts and from_one(value) or value
    end
  end
  return result
end

-- ---- Ops that are called in another form --------------------------------------------------------

-- Golden name to PyTorch's.
local NAME = {
  bce = "binary_cross_entropy",
  bce_with_logits = "binary_cross_entropy_with_logits",
  ctc_loss_log_probs = "ctc_loss",
  ["repeat"] = "tile",
}

local function op(name)
  return lt[name] or error("luatape has no op " .. name, 0)
end

local function on_list(name)
  return function(a, o) return op(name)({ table.unpack(a, 1, a.n) }, o) end
end

local function recurrent(name, states)
  return function(a, o)
    local arguments = { table.unpack(a, 1, 1 + states) }
    arguments[2 + states] = { table.unpack(a, 2 + states, a.n) }
    arguments[3 + states] = o
    return op(name)(table.unpack(arguments))
  end
end

local form = {
  cat = on_list "cat",
  stack = on_list "stack",
  meshgrid = on_list "meshgrid",
  einsum = function(a, o) return op "einsum"(o.equation, table.unpack(a, 1, a.n)) end,
  pow = function(a, o) return op "pow"(a[1], o and o.exponent or a[2]) end,
  rpow = function(a, o) return op "pow"(o.base, a[1]) end,
  lerp = function(a, o) return op "lerp"(a[1], a[2], o and o.weight or a[3]) end,
  masked_fill = function(a, o) return op "masked_fill"(a[1], a[2], o.value) end,
  ["repeat"] = function(a, o) return op "tile"(a[1], { dims = o.sizes }) end,
  ctc_loss = function(a, o)
    return op "ctc_loss"(op "log_softmax"(a[1], { dim = -1 }), a[2], a[3], a[4], o)
  end,
  -- PyTorch's order, and its running statistics that are updated in place.
  batch_norm = function(a, o)
    if not a[4] then return op "batch_norm"(a[1], nil, nil, a[2], a[3], o) end
    local mean, var = a[4]:clone(), a[5]:clone()
    return op "batch_norm"(a[1], mean, var, a[2], a[3], o), mean, var
  end,
  rnn_tanh = recurrent("rnn_tanh", 1),
  rnn_relu = recurrent("rnn_relu", 1),
  gru = recurrent("gru", 1),
  lstm = recurrent("lstm", 2),
}

---x[first:stop:step] along one dim, as an inclusive range.
function form.slice(a, o)
  local x = a[1]
  local dim = o.dim < 0 and o.dim + x.ndim + 1 or o.dim
  local size = x.shape[dim]
  local last = o.stop >= 0 and math.min(o.stop, size) or o.stop - 1
  local window = {}
  for d = 1, x.ndim do window[d] = d == dim and { o.start, last, o.step } or {} end
  return x[window]
end

-- ---- The call -----------------------------------------------------------------------------------

---The arguments as tensors of the float type `dtype`; absent ones are nil.
---@return table list with its length in n
function calls.arguments(case, dtype)
  local list = { n = #case.args }
  for i, t in ipairs(case.args) do
    if t and t.dtype == "int64" and INDEX_ARGUMENT[case.op] == i then t = shifted(t) end
    list[i] = t and values.tensor(t, dtype) or nil
  end
  return list
end

---What luatape should return.
function calls.expected(case)
  local list = {}
  for i, t in ipairs(case.outputs) do
    list[i] = INDEX_RESULT[case.op] == i and t.dtype == "int64" and shifted(t) or t
  end
  return list
end

---Runs a case on its arguments.
---@return table list of results
function calls.run(case, arguments, dtype)
  local program = programs[case.op]
  if program then return table.pack(program(arguments, case.attrs, dtype)) end
  local a, o = { table.unpack(arguments, 1, arguments.n) }, options(case)
  a.n = arguments.n
  if case.attrs.pre == "transpose" then a[1] = a[1]:transpose(-2, -1) end
  if form[case.op] then return values.results(form[case.op], a, o) end
  if o then
    a.n = a.n + 1
    a[a.n] = o
  end
  return values.results(op(NAME[case.op] or case.op), table.unpack(a, 1, a.n))
end

return calls
