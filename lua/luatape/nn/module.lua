--- What all modules share: a module is a table whose fields hold parameters, further modules, or
--- lists of them; it notes the order in which they were assigned, and that is their order.
local lt, core = ...
local arguments = core.import "luatape.arguments"
local is_tensor = lt.is_tensor

local fail, check_options = arguments.fail, arguments.options
local shape_text = arguments.shape_text

--- Fields that may hold parameters or modules, in the order of assignment; and which are buffers.
--- Kept apart so that a module's table has nothing but its own fields.
local order = setmetatable({}, { __mode = "k" })
local buffers = setmetatable({}, { __mode = "k" })

---@class luatape.nn.module
---@field training boolean set by train and eval
---@overload fun(...): ...
local Module = { training = true }

local function is_module(x) return type(x) == "table" and order[x] ~= nil end

--- Variables that have been seen: they stay variables.
local known = setmetatable({}, { __mode = "k" })

local function is_parameter(x)
  if type(x) ~= "userdata" then return false end
  if known[x] then return true end
  if not is_tensor(x) or not x.is_variable then return false end
  known[x] = true
  return true
end

-- ---- Walking ------------------------------------------------------------------------------------

local visit

--- Visits what a field holds: a parameter, a buffer, a module, or a plain list of those.
local function visit_value(value, path, shift, seen, on_tensor, on_module)
  if type(value) == "userdata" then
    if is_parameter(value) and not seen[value] then
      seen[value] = true
      on_tensor(path, value)
    end
  elseif is_module(value) then
    visit(value, path, shift, seen, on_tensor, on_module)
  elseif type(value) == "table" and not seen[value] and getmetatable(value) == nil then
    seen[value] = true
    for i, x in ipairs(value) do
      visit_value(x, path .. "." .. i - shift, shift, seen, on_tensor, on_module)
    end
  end
end

--- Calls on_tensor(name, tensor) for parameters (and buffers, if on_tensor wants them: a third
--- argument true), on_module(name, module) before a module's own. Each thing once.
function visit(module, path, shift, seen, on_tensor, on_module)
  if seen[module] then return end
  seen[module] = true
  if on_module then on_module(path, module) end
  local prefix, own = path == "" and "" or path .. ".", buffers[module]
  for _, key in ipairs(order[module]) do
    local value = rawget(module, key)
    local name = prefix .. (math.type(key) and key - shift or key)
    if own and own[key] and is_tensor(value) then
      if not seen[value] then on_tensor(name, value, true) end
      seen[value] = true
    elseif value ~= nil then
      visit_value(value, name, shift, seen, on_tensor, on_module)
    end
  end
end

local function ignore() end

--- A for-loop over pairs collected in advance.
local function iterate(list)
  local i = 0
  return function()
    i = i + 2
    return list[i - 1], list[i]
  end
end

-- ---- Parameters -----------------------------------------------------------------------------------

--- What parameters() found, with every field that it looked at: training loops ask at each step.
local plans = setmetatable({}, { __mode = "k" })
local new_fields = 0 -- so far, in all modules

local function make_plan(self)
  local holders, keys, values = {}, {}, {}
  local plan = { holders = holders, keys = keys, values = values, list = {}, fields = new_fields }
  local function note(holder, key, value)
    local n = #holders + 1
    holders[n], keys[n], values[n] = holder, key, value or false
  end
  local function note_list(list, seen)
    if seen[list] then return end
    seen[list] = true
    for i = 1, #list + 1 do
      note(list, i, list[i])
      if type(list[i]) == "table" and not order[list[i]] then note_list(list[i], seen) end
    end
  end
  visit(self, "", 0, {}, function(_, t, buffer)
    if not buffer then plan.list[#plan.list + 1] = t end
  end, function(_, m)
    for _, key in ipairs(order[m]) do
      local value = rawget(m, key)
      note(m, key, value)
      if type(value) == "table" and not order[value] and getmetatable(value) == nil then
        note_list(value, {})
      end
    end
  end)
  return plan
end

local function is_current(plan)
  if plan.fields ~= new_fields then return false end
  local holders, keys, values = plan.holders, plan.keys, plan.values
  for i = 1, #holders do
    if (holders[i][keys[i]] or false) ~= values[i] then return false end
  end
  return true
end

--- The variables of this module and of those inside it, each once, in the order of assignment.
---@return luatape.tensor[]
function Module:parameters()
  local plan = plans[self]
  if not plan or not is_current(plan) then
    plan = make_plan(self)
    plans[self] = plan
  end
  return { table.unpack(plan.list) }
end

--- for name, tensor in m:named_parameters() do: names like "1.weight" count from 1.
---@return fun(): string, luatape.tensor
function Module:named_parameters()
  local list = {}
  visit(self, "", 0, {}, function(name, t, buffer)
    if not buffer then list[#list + 1], list[#list + 2] = name, t end
  end)
  return iterate(list)
end

--- for name, module in m:named_modules() do: this one (named "") and all inside it.
---@return fun(): string, luatape.nn.module
function Module:named_modules()
  local list = {}
  visit(self, "", 0, {}, ignore, function(name, m) list[#list + 1], list[#list + 2] = name, m end)
  return iterate(list)
end

--- Keeps a tensor that is saved with the module but not trained, such as a running mean.
---@param name string
---@param t luatape.tensor
function Module:register_buffer(name, t)
  if not is_tensor(t) then fail("register_buffer: '%s' must be a tensor, got %s", name, type(t)) end
  buffers[self] = buffers[self] or {}
  buffers[self][name] = true
  self[name] = t
end

--- Calls f with every module inside, and then with this one; returns it.
---@param f fun(m: luatape.nn.module)
function Module:apply(f)
  local list = {}
  for _, m in self:named_modules() do list[#list + 1] = m end
  for i = #list, 1, -1 do f(list[i]) end
  return self
end

--- Sets training mode (dropout drops, batch statistics are taken) for all modules inside.
---@param mode boolean? default true
function Module:train(mode)
  if mode == nil then mode = true end
  if type(mode) ~= "boolean" then fail("train: takes true or false, got %s", type(mode)) end
  for _, m in self:named_modules() do rawset(m, "training", mode) end
  return self
end

--- The other mode: the module computes as it will in use.
function Module:eval() return (self:train(false)) end

local function set_trainable(self, value)
  for _, t in self:named_parameters() do t.trainable = value end
  return self
end

--- Takes the parameters out of training: tapes do not watch them.
function Module:freeze() return (set_trainable(self, false)) end

--- The opposite of freeze.
function Module:unfreeze() return (set_trainable(self, true)) end

--- Makes all parameters and buffers float32 or float64. They are new variables, so optimizers are
--- made after this.
---@param dtype string
function Module:to(dtype)
  local made = {}
  local function converted(t)
    if t.dtype == dtype then return t end
    if not made[t] then
      if is_parameter(t) then
        made[t] = lt.variable(t:detach(), { dtype = dtype, name = t.name, trainable = t.trainable })
      else
        made[t] = t:to(dtype)
      end
    end
    return made[t]
  end
  local function convert(holder, key, value, seen)
    if is_parameter(value) or (is_tensor(value) and buffers[holder] and buffers[holder][key]) then
      rawset(holder, key, converted(value))
    elseif type(value) == "table" and not order[value] and getmetatable(value) == nil
      and not seen[value] then
      seen[value] = true
      for i, x in ipairs(value) do convert(value, i, x, seen) end
    end
  end
  for _, m in self:named_modules() do
    for _, key in ipairs(order[m]) do convert(m, key, rawget(m, key), {}) end
  end
  return self
end

-- ---- Saving and loading ------------------------------------------------------------------------------

--- Parameters and buffers by name, as { name, tensor, ... }.
local function named_tensors(self, options)
  local list = {}
  visit(self, "", options.pytorch and 1 or 0, {}, function(name, t)
    list[#list + 1], list[#list + 2] = name, t
  end)
  return list
end

--- Copies of all parameters and buffers, by name.
---@param options { pytorch: boolean? }? pytorch = true: lists count from 0, as PyTorch's do
---@return table<string, luatape.tensor>
function Module:state_dict(options)
  options = check_options("state_dict", options, { pytorch = true })
  local state = {}
  for name, t in iterate(named_tensors(self, options)) do state[name] = t:detach():clone() end
  return state
end


--- Copies values into the parameters and buffers of the same names. All are checked before any
--- changes.
---@param state table<string, luatape.tensor>
---@param options { pytorch: boolean?, strict: boolean? }? pytorch = true: names as PyTorch's, which
---  count from 0; strict = false: names may be missing on either side
---@return string[] missing names that the module has and state has not
---@return string[] unexpected
function Module:load_state_dict(state, options)
  options = check_options("load_state_dict", options, { pytorch = true, strict = true })
  if type(state) ~= "table" then
    fail("load_state_dict: takes a table of tensors by name, got %s", type(state))
  end
  local own, missing, unexpected, wrong = {}, {}, {}, {}
  local list = named_tensors(self, options)
  for name, t in iterate(list) do
    local value = state[name]
    own[name] = true
    if value == nil then missing[#missing + 1] = name
    elseif not is_tensor(value) then
      wrong[#wrong + 1] = ("'%s' is a %s, not a tensor"):format(name, type(value))
    elseif shape_text(value) ~= shape_text(t) then
      wrong[#wrong + 1] = ("'%s' is %s, the module's %s"):format(name, shape_text(value),
        shape_text(t))
    end
  end
  for name in pairs(state) do
    if not own[name] then unexpected[#unexpected + 1] = tostring(name) end
  end
  table.sort(unexpected)
  if options.strict ~= false then
    if #missing > 0 then wrong[#wrong + 1] = "missing: " .. table.concat(missing, ", ") end
    if #unexpected > 0 then wrong[#wrong + 1] = "unexpected: " .. table.concat(unexpected, ", ") end
  end
  if #wrong > 0 then fail("load_state_dict: %s", table.concat(wrong, "; ")) end
  for name, t in iterate(list) do
    if state[name] then t:assign(state[name]) end
  end
  return missing, unexpected
end

-- ---- Printing -----------------------------------------------------------------------------------------

--- What stands between the parentheses of a printed module; to be overridden.
---@return string
function Module.extra_repr(_) return "" end

--- Name and text of what is inside.
local function children(self)
  local list = {}
  local function add(name, value)
    if is_module(value) then
      list[#list + 1] = { name, tostring(value) }
    elseif type(value) == "function" then
      list[#list + 1] = { name, "function" }
    elseif type(value) == "table" and getmetatable(value) == nil then
      for i, x in ipairs(value) do
        add(name .. "." .. i, x)
      end
    end
  end
  for _, key in ipairs(order[self]) do add(tostring(key), rawget(self, key)) end
  return list
end

local function text_of(self, name)
  local extra = self:extra_repr()
  local inner = children(self)
  if #inner == 0 then return ("%s(%s)"):format(name, extra) end
  local lines = { name .. "(" .. extra }
  for _, child in ipairs(inner) do
    lines[#lines + 1] = ("(%s): %s"):format(child[1], child[2])
  end
  return table.concat(lines, "\n"):gsub("\n", "\n  ") .. "\n)"
end

-- ---- Making classes --------------------------------------------------------------------------------------

--- Names the parameters of what was put into a field, unless the user did: messages speak of them.
local function name_parameters(key, value)
  key = tostring(key)
  visit_value(value, "", 0, {}, function(path, t)
    path = path:gsub("^%.", "")
    if t.name == nil or t.name == path then
      t.name = path == "" and key or key .. "." .. path
    end
  end)
end

--- A new field. Assignments to one that exists do not come here, and need not.
local function assign(self, key, value)
  rawset(self, key, value)
  local kind = type(value)
  if kind ~= "table" and kind ~= "userdata" and kind ~= "function" then return end
  local list = order[self]
  new_fields = new_fields + 1
  for i = 1, #list do
    if list[i] == key then return end
  end
  list[#list + 1] = key
  name_parameters(key, value)
end

local module = {}

local function call_forward(self)
  fail("%s: has no forward; define it: function %s:forward(x)", self.class_name, self.class_name)
end

--- See nn.module.
function module.new(name, constructor)
  if type(name) ~= "string" then fail("module: the name must be a string, got %s", type(name)) end
  if constructor ~= nil and type(constructor) ~= "function" then
    fail("module: the constructor must be a function, got %s", type(constructor))
  end
  local class = { class_name = name }
  local meta = { __name = "luatape.nn." .. name, __index = class, __newindex = assign }
  meta.__call = call_forward
  function meta:__tostring() return text_of(self, name) end
  local function make(_, ...)
    local self = {}
    order[self] = {}
    setmetatable(self, meta)
    if constructor then constructor(self, ...) end
    return self
  end
  local function define(_, key, value)
    rawset(class, key, value)
    if key == "forward" then meta.__call = value end -- no frame in between
  end
  return setmetatable(class, { __index = Module, __newindex = define, __call = make })
end

--- Does x work as a layer?
function module.is_layer(x) return is_module(x) or type(x) == "function" end

return module
