--- lt.lint: one forward pass and its gradients, looked over for what trains badly or not at all. Each
--- finding names the line of the user's program; nothing is updated.
local lt, core = ...
local arguments = core.import "luatape.arguments"
local variables = core.import "luatape.optim.variables"
local messages = core.import "luatape.optim.messages"
local fail, is_tensor = arguments.fail, lt.is_tensor

--- A gradient is large or tiny beyond these: norm / norm of the variable, norm.
local LARGE <const>, TINY <const> = 1e3, 1e-8
--- Activations beyond it are saturated. Told from this share of them, and of dead units, on: a few
--- are dead from the start in every network.
local SATURATED <const>, SHARE <const> = 0.99, 0.25
--- With fewer samples, only a layer that is dead as a whole is told: chance silences single units.
local BATCH <const> = 4
--- Other variables that a finding names.
local MOST_NAMES <const> = 16

---@class luatape.lint.finding
---@field code string "unused", "partial", "dead-units", "saturated", "left-tensors", "int-dtype",
---  "int-cast", "large-gradient", "tiny-gradient", "zero", "nonfinite", or another reason of a
---  missing gradient
---@field where string? the line it is about
---@field op string? the op there
---@field variable string? name of the (first) variable it is about
---@field variables string[]? names of all of them
---@field share number? of dead units or saturated elements
---@field message string what was found and what to do; also tostring(finding)
local Finding = { __name = "luatape.lint.finding" }
function Finding:__tostring() return self.message end

--- The list of what lint found: findings[i], #findings; tostring tells all of it.
---@class luatape.lint.findings
---@field [integer] luatape.lint.finding
local Findings = { __name = "luatape.lint.findings" }
function Findings:__tostring()
  if #self == 0 then return "nothing found" end
  local lines = {}
  for i, finding in ipairs(self) do lines[i] = finding.message end
  return table.concat(lines, "\n")
end

--- Adds a finding, or only the variable's name to one of the same kind at the same place.
---@param found luatape.lint.findings
---@param finding table code, where, op, variable, share
---@param text string lines of the message, with indentation
local function add(found, finding, text)
  for _, other in ipairs(found) do
    if other.variables and finding.variable and other.code == finding.code
      and other.where == finding.where and other.op == finding.op then
      other.variables[#other.variables + 1] = finding.variable
      return
    end
  end
  finding.variables = finding.variable and { finding.variable }
  finding.message = text
  found[#found + 1] = setmetatable(finding, Finding)
end

--- Puts the names of the further variables into the messages, and the places in front.
local function finish(found)
  for _, finding in ipairs(found) do
    local names, text = finding.variables or {}, finding.message
    if #names > 1 then
      local more = #names - 1 - MOST_NAMES
      text = ("%s\n  The same holds for %s%s."):format(text,
        table.concat(names, ", ", 2, math.min(#names, MOST_NAMES + 1)),
        more > 0 and (" and %d more"):format(more) or "")
    end
    finding.message = (finding.where and finding.where .. ": " or "") .. text
  end
end

-- ---- Gradients ----------------------------------------------------------------------------------

--- What there is to say of a gradient that exists.
local function check_gradient(found, gs, v, name, g)
  local values = g.is_sparse and g:coalesce():values() or g
  local norm, weight = values:norm():item(), v:norm():item()
  local _, made = core.origin(v)
  local finding = { variable = name, where = made }
  if norm ~= norm or norm == math.huge or norm == 0 then
    local text, code, why = variables.reason(gs, v, name)
    finding.code = norm == 0 and "zero" or "nonfinite"
    if code == finding.code then
      finding.where, finding.op = why.where, why.op
    else
      text = norm == 0 and ("the gradient of '%s' is zero everywhere [zero]"):format(name)
        or ("the gradient of '%s' holds NaN or Inf [nonfinite]"):format(name)
    end
    return add(found, finding, text)
  elseif norm < TINY then
    finding.code = "tiny-gradient"
    return add(found, finding, ("the gradient of '%s' has norm %.2g: it will hardly move "
      .. "[tiny-gradient]\n  Look for saturated activations, or scale the loss."):format(name, norm))
  elseif weight > 0 and norm / weight > LARGE then
    finding.code = "large-gradient"
    return add(found, finding, ("the gradient of '%s' has norm %.3g, %.2g times that of the "
      .. "variable [large-gradient]\n  Scale the inputs or the loss, or clip (global_clip_norm = 1).")
      :format(name, norm, norm / weight))
  end
end

--- Cuts that are findings of their own.
local own_codes <const> = { ["left-tensors"] = true, ["int-cast"] = true }

--- Cuts on some of the paths of a gradient that exists.
local function check_cuts(found, tape, loss, v, name)
  local why = tape:explain(loss, v)
  if why.code ~= "partial" then return end
  for _, cut in ipairs(why.cuts) do
    local code = own_codes[cut.code] and cut.code or "partial"
    local cause = cut.code == "left-tensors" and "numbers read by " .. cut.op .. " came back"
      or cut.code == "int-cast" and "some paths are cast to integers"
      or ("%s cuts some paths%s"):format(cut.op or "this line",
        code == "partial" and " (" .. cut.code .. ")" or "")
    add(found, { code = code, where = cut.where, op = cut.op, variable = name },
      ("the gradient of '%s' is partial: %s [%s]"):format(name, cause, code))
  end
end

local function check_variables(found, tape, loss, list, names)
  local gs = tape:gradient(loss, list)
  for i, v in ipairs(list) do
    local name = names[i]
    if gs[i] then
      lt.no_grad(check_gradient, found, gs, v, name, gs[i])
      check_cuts(found, tape, loss, v, name)
    elseif not v.is_variable or v.trainable then
      local text, code, why = variables.reason(gs, v, name)
      add(found, { code = code, where = why.where, op = why.op, variable = name }, text)
    end
  end
end

-- ---- Activations --------------------------------------------------------------------------------

--- The share of the units that are zero for all samples: those along the first dimension, and along
--- the space of images. nil if too few samples say it.
local function dead_share(y)
  local zero = y:eq(0)
  if y.ndim < 2 then return zero:all():item() and 1 or nil end
  local dims, samples = { 1 }, y.shape[1]
  for d = 3, y.ndim do
    if y.ndim >= 4 then dims[#dims + 1], samples = d, samples * y.shape[d] end
  end
  local share = zero:all { dim = dims }:to("float64"):mean():item()
  return (samples >= BATCH or share == 1) and share or nil
end

local function share_of(mask) return mask:to("float64"):mean():item() end

--- For each op: the share of outputs that learn nothing any more, if it is to be told.
local shares = {
  relu = dead_share,
  sigmoid = function(y) return share_of(y:gt(SATURATED):logical_or(y:lt(1 - SATURATED))) end,
  tanh = function(y) return share_of(y:abs():gt(SATURATED)) end,
  -- One element of a distribution can be nearly 1, and each of them sums to 1.
  softmax = function(y)
    return y:gt(SATURATED):to("float64"):sum():item() / math.max(1, y:sum():item())
  end,
}

local advice = {
  relu = "Dead units do not learn: lower the learning rate, look at the bias, or use leaky_relu.",
  sigmoid = "Saturated units hardly learn: scale the inputs or the weights down.",
  tanh = "Saturated units hardly learn: scale the inputs or the weights down.",
  softmax = "Where one probability is nearly 1 little is learned: scale the logits down.",
}

local function add_activation(found, node, share, calls)
  local dead = node.op == "relu"
  local code = dead and "dead-units" or "saturated"
  local what = dead and "of the units are zero for the whole batch"
    or node.op == "softmax" and "of the distributions have an element above 0.99"
    or node.op == "tanh" and "of the elements are beyond 0.99"
    or "of the elements are below 0.01 or above 0.99"
  add(found, { code = code, where = node.where, op = node.op, share = share },
    ("after %s, %.0f%% %s%s [%s]\n  %s"):format(node.op, 100 * share, what,
      calls > 1 and (" (the worst of %d calls)"):format(calls) or "", code, advice[node.op]))
end

--- Runs the activations again on the inputs that the tape kept. Calls of one line are one finding.
local function check_activations(found, tape)
  local worst, order = {}, {}
  for k, node in tape:ops() do
    if shares[node.op] then
      local _, _, inputs = core.node(tape, k)
      -- An input that was overwritten since cannot be asked any more.
      local fine, share = pcall(function() return (shares[node.op](core.rerun(tape, k, inputs))) end)
      share = fine and share or 0
      local key = node.op .. " " .. node.where
      local seen = worst[key]
      if not seen then
        seen = { node = node, share = 0, calls = 0 }
        worst[key], order[#order + 1] = seen, seen
      end
      seen.share, seen.calls = math.max(seen.share, share), seen.calls + 1
    end
  end
  for _, seen in ipairs(order) do
    if seen.share >= SHARE then add_activation(found, seen.node, seen.share, seen.calls) end
  end
end

-- ---- Integers and numbers -----------------------------------------------------------------------

local arithmetic <const> = {
  add = true, sub = true, mul = true, div = true, pow = true, matmul = true, linear = true,
}

--- Integer tensors that arithmetic with floats converts: often literals that were meant as floats.
local function check_integers(found, tape)
  local told = {}
  for _, node in tape:ops() do
    for _, value in ipairs(arithmetic[node.op] and node.inputs or {}) do
      if value.dtype:find "^u?int" and #value.shape > 0 and not told[node.where] then
        told[node.where] = true
        add(found, { code = "int-dtype", where = node.where, op = node.op },
          ("%s converts an %s tensor (%s) to floats at each call, and it can have no gradient "
            .. "[int-dtype]\n  Make it with {dtype = \"float32\"}."):format(node.op, value.dtype,
            table.concat(value.shape, "x")))
      end
    end
  end
end

-- ---- The whole ----------------------------------------------------------------------------------

local function run(tape, vars, loss)
  messages.check_loss("lint", loss)
  tape:stop()
  if vars == nil then vars = tape:watched_variables() end
  if type(vars) == "table" and type(vars.parameters) == "function" then vars = vars:parameters() end
  if not is_tensor(vars) and type(vars) ~= "table" then
    fail("lint: vars must be a variable, a module or a table of variables, got %s", type(vars))
  end
  local found, list, names = setmetatable({}, Findings), {}, {}
  variables.each(vars, nil, function(v, _, place)
    list[#list + 1], names[#names + 1] = v, v.name or place
  end)
  lt.no_grad(check_activations, found, tape)
  check_integers(found, tape)
  check_variables(found, tape, loss, list, names)
  finish(found)
  return found
end

--- Runs one step without an update, f() and the gradients of the loss that it returns first, and
--- tells what is suspicious about it: variables without a gradient, or with a partial, zero, tiny,
--- large or non-finite one; relu units that are dead for the whole batch; saturated sigmoid, tanh
--- and softmax; numbers that left the tensors and came back; integers where floats are meant.
--- What f changes itself (running statistics, random numbers) is changed.
---
---     print(lt.lint(function() return lt.mse_loss(model(x), y) end, model))
---
---@param f fun(): luatape.tensor, ...
---@param vars luatape.tensor|table? variables, nested tables of them, or a module; default: all
---  trainable variables that f uses
---@return luatape.lint.findings findings empty if nothing was found
function lt.lint(f, vars)
  if type(f) ~= "function" then
    fail("lint: takes a function that computes the loss, got %s", is_tensor(f) and "a tensor"
      or "a " .. type(f))
  end
  local tape <close> = core.tape_new(core.tape_meta, true, true, false, true)
  return (run(tape, vars, (f())))
end

return lt.lint
