--- Optimizers. The rules and the step are in C (src/optim); here come options and their checks,
--- groups of parameters, messages about missing gradients, and minimize.
local lt, core = ...
local arguments = core.import "luatape.arguments"
local variables = core.import "luatape.optim.variables"
local report = core.import "luatape.optim.report"
local messages = core.import "luatape.optim.messages"

--- Each constructor takes one table: the rule's options, which param_groups may override; params
--- or groups, {{params =, lr =, ...}, ...} (default: what apply_gradients is given); clip_value,
--- clip_norm or global_clip_norm, applied to the gradients as Keras does; on_nonfinite = "error"
--- (default), "skip" (the whole step) or "apply". lr may be a function of the step, 1, 2, ...
---
--- A sparse gradient (lt.embedding with sparse = true) moves only the rows that it holds; the cost
--- of a step does not depend on how many others there are. They keep their states too: moments and
--- momentum of a row decay in steps that touch it only, weight_decay pulls at those alone, and the
--- step that corrects Adam's bias is the variable's (PyTorch's SparseAdam, TensorFlow's lazy
--- updates). torch.optim.SGD differs with momentum: there rows move on between their gradients.
---@class luatape.optim
---@field Adam fun(options: table?): luatape.optimizer
---@field AdamW fun(options: table?): luatape.optimizer
---@field SGD fun(options: table?): luatape.optimizer
---@field RMSprop fun(options: table?): luatape.optimizer
---@field Adagrad fun(options: table?): luatape.optimizer
local optim = {}
local is_tensor, each = lt.is_tensor, variables.each

local fail = arguments.fail

-- ---- Options ----------------------------------------------------------------------------------

--- Options of the optimizer itself, which no group can change.
local shared = { clip_value = true, clip_norm = true, global_clip_norm = true, on_nonfinite = true }
local on_nonfinite = { error = true, skip = true, apply = true }

local function range_text(option)
  if option.low == -math.huge then return "a number" end
  if option.high == math.huge then return ("a number of at least %g"):format(option.low) end
  return ("a number of at least %g and below %g"):format(option.low, option.high)
end

local function in_range(option, value)
  return math.type(value) ~= nil and value >= option.low and value < option.high
    and value > -math.huge
end

--- The value as the group keeps it, or an error that names the option.
local function check_option(rule, option, value)
  local kind, name = option.kind, option.name
  if kind == "flag" then
    if type(value) == "boolean" then return value end
    fail("%s: %s must be true or false, got %s", rule.name, name, tostring(value))
  elseif kind == "pair" then
    if type(value) == "table" and #value == 2
      and in_range(option, value[1]) and in_range(option, value[2]) then
      return { value[1], value[2] }
    end
    local got = type(value) == "table"
      and ("{%s, %s}"):format(tostring(value[1]), tostring(value[2])) or tostring(value)
    fail("%s: %s must be a table of two, each %s, got %s", rule.name, name, range_text(option), got)
  end
  if in_range(option, value) or (name == "lr" and type(value) == "function") then return value end
  fail("%s: %s must be %s%s, got %s", rule.name, name, range_text(option),
    name == "lr" and " or a function of the step" or "", tostring(value))
end

--- The learning rate of a step that is a function's result.
local function evaluate(rule, rate, step)
  if type(rate) ~= "function" then return rate end
  local value = rate(step)
  if not in_range(rule.by_name.lr, value) then
    fail("%s: lr(%d) returned %s, which is not %s", rule.name, step, tostring(value),
      range_text(rule.by_name.lr))
  end
  return value
end

-- ---- Groups -----------------------------------------------------------------------------------

--- A group of parameters: options of its own, and the optimizer's for the rest. Options read and
--- write like fields.
---@class luatape.optim.group
---@field lr number
local Group = { __name = "luatape.optim.group" }

--- Where a group's own things are kept, out of the way of its options.
local inside = setmetatable({}, { __mode = "k" })

--- What an optimizer keeps, for its method `op`.
local function own_of(op, optimizer)
  local own = inside[optimizer]
  if not own then fail("%s: takes an optimizer, got %s", op, type(optimizer)) end
  return own
end

--- Hands a group's options over to C.
local function configure(group)
  local g = inside[group]
  local rule, values = g.owner.rule, {}
  for _, option in ipairs(rule.options) do
    local value = g.own[option.name]
    if value == nil then value = g.owner.defaults[option.name] end
    if option.name == "lr" then g.rate = type(value) == "function" and value or nil end
    if type(value) == "function" then
      values[#values + 1] = 0 -- until the step is known
      g.owner.scheduled = true
    elseif type(value) == "table" then
      values[#values + 1], values[#values + 2] = value[1], value[2]
    else
      values[#values + 1] = value
    end
  end
  g.values = values
  core.optimizer_group(g.owner.core, g.number, values)
end

function Group:__index(key)
  local g = inside[self]
  local option = g.owner.rule.by_name[key]
  if not option then
    fail("%s: a group has no option '%s'; it has %s", g.owner.rule.name, tostring(key),
      arguments.list(g.owner.rule.by_name))
  end
  local value = g.own[key]
  if value == nil then value = g.owner.defaults[key] end
  if key == "lr" then
    return evaluate(g.owner.rule, value, core.optimizer_steps(g.owner.core) + 1)
  end
  return type(value) == "table" and { value[1], value[2] } or value
end

function Group:__newindex(key, value)
  local g = inside[self]
  local option = g.owner.rule.by_name[key]
  if not option then return Group.__index(self, key) end
  local before = g.own[key]
  g.own[key] = check_option(g.owner.rule, option, value)
  local ok, message = pcall(configure, self)
  if ok then return end
  g.own[key] = before
  error(message, 0)
end

-- ---- The optimizer ----------------------------------------------------------------------------

---@class luatape.optimizer
---@field lr number the learning rate of the next step; may be set to a number or a function
---@field step integer steps taken so far
---@field param_groups luatape.optim.group[]
local Optimizer = {}

local meta = { __name = "luatape.optimizer", __metatable = false, __methods = Optimizer }

function meta:__index(key)
  local method = Optimizer[key]
  if method then return method end
  local own = inside[self]
  if key == "step" then return core.optimizer_steps(own.core) end
  if key == "param_groups" then return own.groups end
  if shared[key] then return own.shared[key] end
  local option = own.rule.by_name[key]
  if not option then
    fail("%s: no field or method '%s'; its options are %s", own.rule.name, tostring(key),
      arguments.list(own.rule.by_name, shared))
  end
  local value = own.defaults[key]
  if key == "lr" then return evaluate(own.rule, value, core.optimizer_steps(own.core) + 1) end
  return type(value) == "table" and { value[1], value[2] } or value
end

local function configure_all(own)
  for _, group in ipairs(own.groups) do configure(group) end
end

--- Sets an option for all groups that have no value of their own.
function meta:__newindex(key, value)
  local own = inside[self]
  local option = own.rule.by_name[key]
  if not option then
    fail("%s: '%s' cannot be set; what can is %s", own.rule.name, tostring(key),
      arguments.list(own.rule.by_name))
  end
  local before = own.defaults[key]
  own.defaults[key] = check_option(own.rule, option, value)
  local ok, message = pcall(configure_all, own)
  if ok then return end
  own.defaults[key] = before
  configure_all(own)
  error(message, 0)
end

function meta:__tostring()
  local own = inside[self]
  local parts = {}
  for _, option in ipairs(own.rule.options) do
    local value = self[option.name]
    if type(value) == "table" then value = ("{%g, %g}"):format(value[1], value[2]) end
    parts[#parts + 1] = option.name .. " = " .. tostring(value)
  end
  return ("%s{ %s }, step %d"):format(own.rule.name, table.concat(parts, ", "), self.step)
end

-- ---- Variables --------------------------------------------------------------------------------

--- Gives a slot what a loaded state_dict holds for it.
local function restore(own, slot)
  local saved = own.loaded and own.loaded[slot]
  if not saved then return end
  core.optimizer_restore(own.core, slot, saved.step, saved)
  own.loaded[slot] = nil
end

--- Slots for the variables that have none yet, in the order of `each`.
local function register(own, list)
  each(list, nil, function(v, _, place)
    if core.optimizer_find(own.core, v) then return end
    if not own.open then
      fail("apply_gradients: %s belongs to no parameter group of the %s made at %s [foreign]\n"
        .. "  Give it to that optimizer as one of its params, or leave it out here.",
        variables.label(v, place), own.rule.name, own.made)
    end
    restore(own, core.optimizer_add(own.core, v, 1, place))
  end)
end

local function add_group(own, description)
  local group = {}
  local g = { owner = own, number = #own.groups + 1, own = {} }
  for key, value in pairs(description) do
    if key ~= "params" then
      local option = own.rule.by_name[key]
      if not option then
        fail("%s: unknown option '%s' of a group; it has params, %s", own.rule.name, tostring(key),
          arguments.list(own.rule.by_name))
      end
      g.own[key] = check_option(own.rule, option, value)
    end
  end
  inside[group] = g
  setmetatable(group, Group)
  configure(group)
  own.groups[g.number] = group
  if description.params == nil then return end
  each(description.params, nil, function(v, _, place)
    if core.optimizer_find(own.core, v) then
      fail("%s: %s is in two parameter groups", own.rule.name, variables.label(v, place))
    end
    core.optimizer_add(own.core, v, g.number, place)
  end)
end

-- ---- A step -----------------------------------------------------------------------------------

local function raise_nonfinite(gs, text, count, v)
  local message = ("apply_gradients: the gradient of %s holds NaN or Inf (%d of %d elements); "
    .. "no variable was changed [nonfinite]"):format(text, count, v:numel())
  local why, code = variables.reason(gs, v)
  if code == "nonfinite" then message = message .. "\n" .. why end
  fail("%s", message)
end

--- Rates that are functions, evaluated for the coming step.
local function schedule(own)
  local step = core.optimizer_steps(own.core) + 1
  for number, group in ipairs(own.groups) do
    local g = inside[group]
    if g.rate then
      g.values[1] = evaluate(own.rule, g.rate, step)
      core.optimizer_group(own.core, number, g.values)
    end
  end
end

--- One step; `head` begins the error when no variable has a gradient.
local function take_step(own, gs, vars, head)
  if own.scheduled then schedule(own) end
  local apply, handle = core.optimizer_apply, own.core
  messages.check_order(handle, gs, vars)
  local state, about, count, slot = apply(handle, gs, vars)
  if state == "new" then
    register(own, vars)
    messages.check_order(handle, gs, vars)
    state, about, count, slot = apply(handle, gs, vars)
  end
  if state == nil then return true end
  if state == "missing" then
    messages.warn_missing(handle, gs, about)
    return true
  elseif state == "none" then
    messages.raise_missing(head .. ": no gradients provided for any variable", gs, vars)
  end
  if own.shared.on_nonfinite == "skip" then return false end
  return raise_nonfinite(gs, about, count, (core.optimizer_slot(handle, slot)))
end

--- Moves the variables by one step: one fused pass in C over all of them.
--- A variable without a gradient (`false`) is skipped and keeps its state; the reason is told by
--- warn(), once per variable, unless it was cut on purpose (stop_gradient, frozen). That all of
--- them have none is an error. NaN and Inf are refused before anything moves, unless the optimizer
--- was made with on_nonfinite = "apply" or "skip".
---@param gs luatape.tensor|table gradients in the shape of `vars`, as tape:gradient gives them
---@param vars luatape.tensor|table variables, in nested tables if you like
---@return boolean moved false when a gradient was not finite and on_nonfinite is "skip"
function Optimizer:apply_gradients(gs, vars)
  local own = own_of("apply_gradients", self)
  return (take_step(own, gs, vars, own.rule.name))
end

--- The variables of the parameter groups, or nil.
local function grouped(own)
  if own.open then return nil end
  local list = {}
  while true do
    local v = core.optimizer_slot(own.core, #list + 1)
    if not v then return list end
    list[#list + 1] = v
  end
end

local function finish(self, tape, vars, loss, ...)
  messages.check_loss("minimize", loss)
  local own = inside[self]
  if vars ~= nil and not is_tensor(vars) and (type(vars) ~= "table" or next(vars) == nil) then
    fail("minimize: vars must be a variable or a table of them, got %s",
      type(vars) == "table" and "an empty table" or "a " .. type(vars))
  end
  vars = vars or grouped(own) or tape:watched_variables()
  if is_tensor(vars) then vars = { vars } end
  if next(vars) == nil then messages.raise_no_variables("minimize", tape, loss) end
  local gs = tape:gradient(loss, vars)
  local moved = take_step(own, gs, vars, messages.head("minimize", tape, loss))
  return loss, report.new(own.core, gs, vars, moved), ...
end

--- Opens a tape, calls loss_fn(), and applies the gradients of what it returns first.
---@param loss_fn fun(): luatape.tensor, ... the forward pass: it must run inside
---@param vars luatape.tensor|table? default: those of the parameter groups, or else all trainable
---  variables that were used
---@return luatape.tensor loss
---@return luatape.optim.report report
---@return any ... what loss_fn returned further
function Optimizer:minimize(loss_fn, vars)
  own_of("minimize", self)
  if type(loss_fn) ~= "function" then
    fail("minimize: takes a function that computes the loss, got %s; wrap the forward pass: "
      .. "opt:minimize(function() return loss end, variables) [outside-tape]",
      is_tensor(loss_fn) and "a tensor" or "a " .. type(loss_fn))
  end
  local tape <close> = lt.tape()
  return finish(self, tape, vars, loss_fn())
end

-- ---- Saving and loading -----------------------------------------------------------------------

--- A snapshot of the optimizer, as plain tables: step; state[i] = { step =, exp_avg =, ... } for
--- variable i in the order in which they were first seen; param_groups with options and the
--- numbers of their variables. Tensors are copies. A learning rate that is a function is left out.
---@return table
function Optimizer:state_dict()
  local own = own_of("state_dict", self)
  local state, groups = {}, {}
  for number, group in ipairs(own.groups) do
    local g = { params = {} }
    for _, option in ipairs(own.rule.options) do
      if not (option.name == "lr" and inside[group].rate) then
        g[option.name] = group[option.name]
      end
    end
    groups[number] = g
  end
  local slot = 1
  while true do
    local v, _, group, step = core.optimizer_slot(own.core, slot)
    if not v then break end
    table.insert(groups[group].params, slot)
    if step > 0 then
      state[slot] = core.optimizer_states(own.core, slot)
      state[slot].step = step
    end
    slot = slot + 1
  end
  for i, saved in pairs(own.loaded or {}) do state[i] = saved end
  return { step = self.step, state = state, param_groups = groups }
end

--- Options of a saved group, checked.
local function read_group(own, number, saved)
  local options = {}
  for key, value in pairs(saved) do
    local option = own.rule.by_name[key]
    if option then
      options[key] = check_option(own.rule, option, value)
    elseif key ~= "params" then
      fail("load_state_dict: group %d has an option '%s', %s has %s", number, tostring(key),
        own.rule.name, arguments.list(own.rule.by_name))
    end
  end
  return options
end

--- Takes over a snapshot of the same optimizer: what follows is, bit for bit, what would have
--- followed there. Variables not seen yet get their state when they come. A learning rate that is
--- a function stays. All is checked before anything changes.
---@param saved table made by state_dict
function Optimizer:load_state_dict(saved)
  local own = own_of("load_state_dict", self)
  if type(saved) ~= "table" or math.type(saved.step) ~= "integer"
    or type(saved.state) ~= "table" or type(saved.param_groups) ~= "table" then
    fail("load_state_dict: takes a table made by state_dict")
  end
  if #saved.param_groups ~= #own.groups then
    fail("load_state_dict: %d parameter groups, this %s has %d", #saved.param_groups,
      own.rule.name, #own.groups)
  end
  local slots, options = 0, {}
  while core.optimizer_slot(own.core, slots + 1) do slots = slots + 1 end
  for i, state in pairs(saved.state) do
    if type(state) ~= "table" or math.type(state.step) ~= "integer" or state.step < 0 then
      fail("load_state_dict: state %s has no count of steps", tostring(i))
    end
    if i <= slots then core.optimizer_restore(own.core, i, state.step, state, true) end
  end
  for i, group in ipairs(saved.param_groups) do options[i] = read_group(own, i, group) end
  for i, group in ipairs(own.groups) do
    -- The only group's options are the optimizer's.
    local target = #own.groups == 1 and own.defaults or inside[group].own
    for key, value in pairs(options[i]) do
      inside[group].own[key] = nil
      target[key] = value
    end
  end
  configure_all(own)
  core.optimizer_steps(own.core, saved.step)
  own.loaded = {}
  for i, state in pairs(saved.state) do own.loaded[i] = state end
  for slot = 1, slots do restore(own, slot) end
end

-- ---- Making one -------------------------------------------------------------------------------

local function check_shared(rule, own, key, value)
  if key == "on_nonfinite" then
    if not on_nonfinite[value] then
      fail("%s: on_nonfinite must be one of: error skip apply; got %s", rule.name, tostring(value))
    end
  elseif math.type(value) == nil or not (value > 0 and value < math.huge) then
    fail("%s: %s must be a number above 0, got %s", rule.name, key, tostring(value))
  elseif own.shared.clip_value or own.shared.clip_norm or own.shared.global_clip_norm then
    fail("%s: only one of clip_value, clip_norm, global_clip_norm can be given", rule.name)
  end
  own.shared[key] = value
end

local function construct(rule, options)
  if options == nil then options = {} end
  if type(options) ~= "table" then
    fail("%s: options must be a table, got %s", rule.name,
      is_tensor(options) and "a tensor" or "a " .. type(options))
  end
  local own = {
    rule = rule, core = core.optimizer_new(rule.number), groups = {}, defaults = {},
    shared = { on_nonfinite = "error" }, open = false, made = core.site(),
  }
  for _, option in ipairs(rule.options) do
    if options.keras == true then own.defaults[option.name] = option.keras
    else own.defaults[option.name] = option.value end
  end
  local descriptions = {}
  for key, value in pairs(options) do
    if rule.by_name[key] then
      own.defaults[key] = check_option(rule, rule.by_name[key], value)
    elseif shared[key] then
      check_shared(rule, own, key, value)
    elseif math.type(key) == "integer" and type(value) == "table" and value.params ~= nil then
      descriptions[key] = value
    elseif key ~= "params" then
      fail("%s: unknown option '%s'; it has %s", rule.name, tostring(key),
        arguments.list(rule.by_name, shared, { params = true }))
    end
  end
  local s = own.shared
  core.optimizer_clip(own.core, s.clip_value, s.clip_norm, s.global_clip_norm,
    s.on_nonfinite == "apply")
  if options.params ~= nil then table.insert(descriptions, 1, { params = options.params }) end
  if #descriptions == 0 then
    own.open = true
    add_group(own, {})
  end
  for _, description in ipairs(descriptions) do add_group(own, description) end
  local self = {}
  inside[self] = own
  return setmetatable(self, meta)
end

for number, rule in ipairs(core.optimizer_rules()) do
  rule.number, rule.by_name = number, {}
  for _, option in ipairs(rule.options) do rule.by_name[option.name] = option end
  optim[rule.name] = function(options) return (construct(rule, options)) end
end

for name, f in pairs(core.import "luatape.optim.clip") do optim[name] = f end

return optim
