--- Clipping of gradients, by TensorFlow's and PyTorch's formulas, out of differentiable ops. Sparse
--- gradients are coalesced, and stay sparse: what is done to zeros leaves zeros.
local lt, core = ...
local arguments = core.import "luatape.arguments"
local fail, within = arguments.fail, arguments.within
local is_tensor = lt.is_tensor

---@class luatape.optim
local clip = {}

local function check_bound(op, name, value) arguments.number(op, name, value, 0) end

local DEEPEST <const> = 100

--- A table of the same shape with f(tensor) for each tensor; false stays false, with its reason.
local function map(op, value, f, depth)
  if (depth or 0) > DEEPEST then fail("%s: tables are nested more than %d deep", op, DEEPEST) end
  if is_tensor(value) then return (f(value)) end
  if value == false then return false end
  if type(value) ~= "table" then
    fail("%s: takes a tensor or a table of tensors, got %s", op, type(value))
  end
  local result = {}
  for key, x in pairs(value) do result[key] = map(op, x, f, (depth or 0) + 1) end
  return (core.answer_like(value, result))
end

--- What counts of a gradient: of a sparse one, its rows, each once, or a zero.
local function values_of(t)
  if not t.is_sparse then return t end
  local values = t:coalesce():values()
  return values:numel() > 0 and values or lt.zeros({ 1 }, { dtype = t.dtype })
end

--- f(t), or t with f of its rows.
local function change(t, f)
  if not t.is_sparse then return (f(t)) end
  t = t:coalesce()
  return (core.with_values(t, (f(t:values()))))
end

--- The tensors of a nested table.
local function flatten(op, value)
  local list = {}
  map(op, value, function(t)
    list[#list + 1] = t
    return t
  end)
  if #list == 0 then fail("%s: there are no tensors", op) end
  return list
end

--- The p-norm of all elements of all tensors.
local function norm_of(op, list, p)
  local norms = {}
  for i, t in ipairs(flatten(op, list)) do norms[i] = values_of(t):norm { p = p } end
  return (lt.stack(norms):norm { p = p })
end

--- All tensors times a 0-d tensor.
local function scale(op, list, factor)
  local function times(x) return (x * factor) end
  return (map(op, list, function(t) return (change(t, times)) end))
end

--- Each element kept within low and high; one number c means -c and c. The bounds of a sparse
--- gradient must hold 0.
---@param t luatape.tensor|table a tensor, or nested tables of them, where false stays
---@param low number
---@param high number?
---@return luatape.tensor|table
function clip.clip_by_value(t, low, high)
  if high == nil then
    check_bound("clip_by_value", "the bound", low)
    low, high = -low, low
  end
  if math.type(low) == nil or math.type(high) == nil or low > high then
    fail("clip_by_value: low and high must be numbers in order, got %s and %s", tostring(low),
      tostring(high))
  end
  local function clamp(x) return (x:clamp { min = low, max = high }) end
  return (within("clip_by_value", map, "clip_by_value", t, function(x)
    if x.is_sparse and (low > 0 or high < 0) then
      fail("clip_by_value: bounds %g and %g leave no zeros in a sparse gradient", low, high)
    end
    return (change(x, clamp))
  end))
end

--- t * clip_norm / max(clip_norm, |t|), for each tensor apart (TensorFlow).
---@param t luatape.tensor|table
---@param clip_norm number
---@param options { dim: integer|integer[]? }? the norm over these dimensions; default all
---@return luatape.tensor|table
function clip.clip_by_norm(t, clip_norm, options)
  check_bound("clip_by_norm", "clip_norm", clip_norm)
  local dim = arguments.options("clip_by_norm", options, { dim = true }).dim
  local function clipped(x)
    local norm = dim and x:norm { dim = dim, keepdim = true } or x:norm()
    return (x * (clip_norm / norm:clamp { min = clip_norm }))
  end
  return (within("clip_by_norm", map, "clip_by_norm", t, function(x)
    return (change(x, clipped))
  end))
end

--- The root of the sum of the squares of all elements of all tensors.
---@param list table tensors in nested tables; false counts as absent
---@return luatape.tensor
function clip.global_norm(list) return (within("global_norm", norm_of, "global_norm", list, 2)) end

--- All tensors times clip_norm / max(clip_norm, N), N their global norm (TensorFlow). A norm that
--- is not finite makes all of them NaN.
---@param list table tensors in nested tables; false stays
---@param clip_norm number
---@param use_norm luatape.tensor? N, if it is known
---@return table clipped
---@return luatape.tensor norm
function clip.clip_by_global_norm(list, clip_norm, use_norm)
  check_bound("clip_by_global_norm", "clip_norm", clip_norm)
  if use_norm ~= nil and not (is_tensor(use_norm) and use_norm.ndim == 0) then
    fail("clip_by_global_norm: use_norm must be a 0-d tensor, got %s", type(use_norm))
  end
  return within("clip_by_global_norm", function()
    local norm = use_norm or norm_of("clip_by_global_norm", list, 2)
    local factor = clip_norm / norm:clamp { min = clip_norm } + (norm - norm)
    return scale("clip_by_global_norm", list, factor), norm
  end)
end

--- All tensors times min(1, max_norm / (N + 1e-6)), N the p-norm of all their elements (PyTorch;
--- the given tensors stay as they are).
---@param list table tensors in nested tables; false stays
---@param max_norm number
---@param options { norm_type: number? }? p, default 2; math.huge for the largest
---@return table clipped
---@return luatape.tensor norm
function clip.clip_grad_norm(list, max_norm, options)
  check_bound("clip_grad_norm", "max_norm", max_norm)
  local p = arguments.options("clip_grad_norm", options, { norm_type = true }).norm_type or 2
  return within("clip_grad_norm", function()
    local norm = norm_of("clip_grad_norm", list, p)
    local factor = (max_norm / (norm + 1e-6)):clamp { max = 1 }
    return scale("clip_grad_norm", list, factor), norm
  end)
end

return clip
