--- The gradient tape as the user sees it: nested tables of sources, reasons for what is missing,
--- pausing, custom gradients. The walk itself is in C.
local lt, core = ...
local arguments = core.import "luatape.arguments"
local nested = core.import "luatape.nested"

--- Why there is, or is not, a gradient (provenance of one source).
---@class luatape.why
---@field code string one word, e.g. "outside-tape"
---@field where string the call site of the cause, "train.lua:11"
---@field op string? the op or call at that place
---@field message string what happened and what to write instead; also tostring(why)
---@field paths number how many paths connect the two, where code is "ok" or "partial"
---@field cuts table[] every cut between target and source: {code =, where =, op =}
---@field because string? of "zero": relu, saturated, clipped, masked, flat-op or zero-factor
---@field share number? of "zero": which part of the gradient that arrived the op blocked
---@field phase string? of "nonfinite": "forward" or "backward"
---@field element integer[]? of "nonfinite": the first element of the op's result, from 1
---@field operands table? of "nonfinite": the op's inputs at that element (false for unknown ones),
---  and the fields dy (the gradient that arrived there) and result (what the op made)
local Why = { __name = "luatape.why" }
Why.__index = Why
function Why:__tostring() return self.message end

---@class luatape.tape
local Tape = {
  watch = core.watch, stop = core.stop, resume = core.resume, reset = core.reset,
  close = core.close, paused = core.paused, watched_variables = core.watched_variables,
}
local meta = {
  __name = "luatape.tape", __metatable = false, __gc = core.tape_gc, __close = core.close,
  __methods = Tape,
}

function meta.__index(tape, key)
  local method = Tape[key]
  if method then return method end
  local listening, persistent, consumed, closed, count = core.tape_state(tape)
  if key == "listening" then return listening end
  if key == "persistent" then return persistent end
  if key == "consumed" then return consumed end
  if key == "closed" then return closed end
  if key == "count" then return count end
  error("a tape has no field or method '" .. tostring(key) .. "'", 2)
end

function meta.__tostring(tape)
  local listening, persistent, consumed, closed, count = core.tape_state(tape)
  local state = closed and "closed" or consumed and "used up"
    or listening and "recording" or "stopped"
  return string.format("tape (%s%s, %d operations)", persistent and "persistent, " or "", state,
    count)
end

core.tape_meta = meta

local fail, check_options = arguments.fail, arguments.options

--- Opens a tape: it records, from here on, every operation on watched values and on trainable
--- variables. As TensorFlow's GradientTape. Best held by `local tape <close> = lt.tape()`.
---@param options { persistent: boolean?, watch_variables: boolean? }?
---  persistent (default false): may be asked more than once; watch_variables (default true)
---@return luatape.tape
function lt.tape(options)
  options = check_options("tape", options, { persistent = true, watch_variables = true })
  return (core.tape_new(meta, options.persistent == true, options.watch_variables ~= false))
end

--- Runs f(tape) under a new persistent = false tape and returns the tape and what f returned.
---@param f fun(tape: luatape.tape): ...
---@return luatape.tape tape
---@return any ...
function lt.record(f)
  local tape = lt.tape()
  local results = table.pack(pcall(f, tape))
  if not results[1] then
    tape:close()
    error(results[2], 0)
  end
  tape:stop()
  return tape, table.unpack(results, 2, results.n)
end

local is_tensor, flatten = lt.is_tensor, nested.flatten

--- Gradients come as a table of the sources' shape; why(source) tells the reason of a `false`.
---@class luatape.gradients
local Gradients = { __name = "luatape.gradients" }
Gradients.__index = Gradients

--- What each table of gradients was asked of; weak, so that it lives no longer than they do.
local asked = setmetatable({}, { __mode = "k" })

--- What gs was asked of: {tape =, targets =, sources =, flat = list of the sources}, or nil.
function core.question_of(gs) return asked[gs] end

--- Lets a table of the same shape, of clipped gradients, say, answer as gs does.
function core.answer_like(gs, other)
  if not asked[gs] then return other end
  asked[other] = asked[gs]
  return setmetatable(other, Gradients)
end

--- Why there is, or is not, a gradient of that source.
---@param source luatape.tensor one of the sources
---@return luatape.why
function Gradients:why(source)
  local question = asked[self]
  return (question.tape:explain(question.targets, source))
end

local gradient_options = { output_gradients = true, unconnected_gradients = true }
local unconnected_kinds = { none = true, zero = true, error = true }

--- d target / d sources, target summed if it is not a scalar (a table of targets: their sum).
--- A tape that is not persistent is used up.
---@param target luatape.tensor|table
---@param sources luatape.tensor|table nested tables are answered in their own shape
---@param options { output_gradients: luatape.tensor|table?, unconnected_gradients: string? }?
---  output_gradients: weights of the target's elements (default ones);
---  unconnected_gradients: "none" (default: nil, or false in a table), "zero", "error"
---@return luatape.tensor|table|nil gradients
---@return luatape.why? why for a single source: without a gradient, or with one that holds NaN or
---  Inf, or, the first time for that source, that is all zeros
function Tape:gradient(target, sources, options)
  options = check_options("gradient", options, gradient_options)
  local kind = options.unconnected_gradients or "none"
  if not unconnected_kinds[kind] then
    fail("gradient: unconnected_gradients must be one of: none zero error; got %s", tostring(kind))
  end
  local targets, flat, seeds = flatten(target, "gradient"), flatten(sources, "gradient"), nil
  if options.output_gradients ~= nil then
    seeds = flatten(options.output_gradients, "gradient")
    if #seeds ~= #targets then
      fail("gradient: %d output_gradients for %d targets", #seeds, #targets)
    end
  end
  local found, told = core.gradient(self, targets, seeds, flat)
  if kind ~= "none" then
    for i, g in ipairs(found) do
      if not g then
        if kind == "error" then fail("%s", tostring(self:explain(targets, flat[i]))) end
        found[i] = lt.zeros_like(flat[i])
      end
    end
  end
  if is_tensor(sources) then
    if found[1] and not told then return found[1] end
    if told then return found[1], (self:explain(targets, sources)) end
    return nil, (self:explain(targets, sources))
  end
  local result = setmetatable(nested.rebuild(sources, found), Gradients)
  asked[result] = { tape = self, targets = targets, sources = sources, flat = flat }
  return result
end

--- Why `source` has no gradient in `target`, or where paths to it are cut. Works on an open, a
--- used up and a closed tape.
---@param target luatape.tensor|table
---@param source luatape.tensor
---@return luatape.why
function Tape:explain(target, source)
  local targets = flatten(target, "explain")
  local code, where, op, message, paths, cuts, found = core.explain(self, targets, source)
  local why = found or {}
  why.code, why.where, why.op, why.message = code, where, op, message
  why.paths, why.cuts = paths, cuts
  return setmetatable(why, Why)
end

--- Calls f(...) with no tape recording, also when it raises; returns its results. No coroutine
--- may yield out of it.
---@type fun(f: (fun(...): ...), ...): ...
lt.no_grad = core.no_grad

--- Makes a function whose gradient is given by hand, as TensorFlow's custom_gradient. f(...)
--- takes tensors and returns a tensor y (or several) and a function from dy (of y's shape; one for
--- each result) to the gradients of the arguments, in their order and shapes (nil for none). What f
--- computes is not recorded.
---@param f fun(...: luatape.tensor): luatape.tensor, fun(dy: luatape.tensor): ...
---@return fun(...: luatape.tensor): luatape.tensor, ...
function lt.custom_gradient(f)
  if type(f) ~= "function" then fail("custom_gradient: takes a function, got %s", type(f)) end
  return function(...)
    local results = table.pack(lt.no_grad(f, ...))
    local back = table.remove(results, results.n)
    for k = 1, math.max(results.n - 1, 1) do
      if not is_tensor(results[k]) or type(back) ~= "function" then
        fail("custom_gradient: the function must return a tensor and a function, got %s and %s",
          type(results[k]), type(back))
      end
    end
    if core.custom_called then core.custom_called(f) end
    return core.custom(results, { ... }, back)
  end
end

return Tape
