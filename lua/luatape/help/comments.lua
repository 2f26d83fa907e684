--- The comments above the public functions of the Lua half (LuaCATS), read as documentation; meta.lua
--- has those of the functions that are written in C. And what says all about itself: the rules of
--- optimizers, and modules that are ops.
local lt, core = ...
local ops = core.import "luatape.help.ops"
local value_text = ops.value_text

--- A type and what follows it: "{ a: number? }? of the step" is split behind the second "?".
local function split_type(text)
  local depth, at = 0, 1
  while at <= #text do
    local c = text:sub(at, at)
    if c:find "[%(%[{<]" then depth = depth + 1 end
    if c:find "[%)%]}>]" then depth = depth - 1 end
    if c == " " and depth == 0 and not text:sub(at - 1, at - 1):find "[:,|]" then break end
    at = at + 1
  end
  local kind = text:sub(1, at - 1):gsub("luatape%.", "")
  return kind, (text:sub(at + 1):gsub("^#%s*", ""))
end

--- Reads one tag into the entry.
local function read_tag(entry, tag, text)
  if tag == "param" or tag == "field" then
    local name, rest = text:match "^(%S+)%s*(.*)$"
    if name:sub(1, 1) == "[" then return end -- [string]: what indexing gives; the prose says it
    local kind, about = split_type(rest)
    entry.items[#entry.items + 1] = { name = name, type = kind, text = about }
  elseif tag == "return" then
    local kind, about = split_type(text)
    if about:find "^%.%.%." then kind, about = kind .. "...", about:gsub("^%.%.%.%s*", "") end
    entry.items[#entry.items + 1] = { name = "returns", type = kind, text = about }
  elseif tag == "class" then
    entry.class, entry.is_class = text:match "^[%w_.]+", true
  elseif tag == "overload" then
    entry.arguments = entry.arguments or text:match "^fun(%b())"
  end
end

---@param lines string[] a block of comment lines, without the dashes
---@return luatape.help.entry
local function read_comment(lines)
  local entry, prose, tag, text = { items = {} }, {}, nil, nil
  local function finish()
    if tag then read_tag(entry, tag, text) end
  end
  for _, line in ipairs(lines) do
    local name, rest = line:match "^@(%w+)%s*(.*)$"
    if name then
      finish()
      tag, text = name, rest
    elseif tag then
      text = text .. " " .. line:gsub("^%s+", "")
    else
      prose[#prose + 1] = line
    end
  end
  finish()
  entry.doc = table.concat(prose, "\n"):gsub("%s+$", "")
  return entry
end

--- Rooms of functions ("lt.data."); everything else is an object, called by its last name.
local rooms = {
  ["luatape"] = "lt.", ["luatape.nn"] = "lt.nn.", ["luatape.nn.init"] = "lt.nn.init.",
  ["luatape.optim"] = "lt.optim.", ["luatape.optim.schedule"] = "lt.optim.schedule.",
  ["luatape.data"] = "lt.data.",
}

--- Arguments as one writes them: without types.
local function plain_arguments(text)
  local names, depth, name = {}, 0, nil
  for word in text:sub(2, -2):gmatch "[^%s,]+" do
    if depth == 0 then name = word:match "^([%w_.]+):?" end
    if name and depth == 0 and (word:find ":$" or word == "...") then names[#names + 1] = name end
    for bracket in word:gmatch "[%(%[{<%)%]}>]" do
      depth = depth + (bracket:find "[%(%[{<]" and 1 or -1)
    end
  end
  return "(" .. table.concat(names, ", ") .. ")"
end

--- The documented classes and functions of one file.
local function read_file(text, list)
  local class_of, lines = { lt = "luatape" }, {}
  local function take(line)
    local entry = read_comment(lines)
    local variable = line:match "^local%s+([%w_]+)"
    local owner, separator, name, arguments = line:match "^function%s+([%w_]+)([.:])([%w_]+)%s*(%b())"
    if entry.is_class then
      if variable then class_of[variable] = entry.class end
      local room = entry.class:match "^(.*)%.%w+$"
      entry.name = entry.class:match "[%w_]+$"
      entry.head = entry.class
      if entry.arguments and rooms[room] then
        entry.head = rooms[room] .. entry.name .. plain_arguments(entry.arguments)
      end
    elseif name and class_of[owner] and not name:find "^__" then
      local class = class_of[owner]
      entry.class, entry.name = class, name
      if arguments == "(_)" then separator, arguments = ":", "()" end -- a method that needs no self
      entry.head = (rooms[class] or class:match "%w+$" .. separator) .. name .. arguments
    else
      return
    end
    list[#list + 1] = entry
  end
  for line in (text .. "\n"):gmatch "(.-)\n" do
    local variable, import = line:match '^local%s+([%w_]+)%s*=%s*core%.import%s*"([%w_.]+)"'
    if variable then class_of[variable] = import end -- a file whose class is named as it is
    local comment = line:match "^%-%-%-%s?(.*)$"
    if comment then
      lines[#lines + 1] = comment
    elseif #lines > 0 then
      take(line)
      lines = {}
    end
  end
end

--- The optimizers: their rules are in C, and say all about themselves.
local function rule_entries(list)
  for _, rule in ipairs(core.optimizer_rules()) do
    local named, items = {}, {}
    for _, option in ipairs(rule.options) do
      local function text(v)
        return type(v) == "table" and ("{%g, %g}"):format(v[1], v[2]) or value_text(v)
      end
      local default = text(option.value)
      named[#named + 1] = option.name .. " = " .. default
      local kind = ({ flag = "boolean", pair = "two numbers" })[option.kind] or "number"
      local keras = text(option.keras)
      local other = keras ~= default and option.name ~= "keras" and ", with keras " .. keras or ""
      items[#items + 1] = { name = option.name, type = kind, text = "default " .. default .. other }
    end
    list[#list + 1] = {
      name = rule.name, class = "luatape.optim", doc = rule.doc, items = items,
      head = ("lt.optim.%s{%s}"):format(rule.name, table.concat(named, ", ")),
    }
  end
end

--- Modules that are an op with its options: nn.LogSoftmax is log_softmax.
local function module_entries(list)
  local known = {}
  for _, entry in ipairs(list) do known[entry.head:match "^[%w_.]+"] = true end
  local by_name = {}
  for name, op in pairs(lt.ops) do
    if not op.internal then by_name[name:gsub("_", "")] = op end
  end
  local names = {}
  for name, class in pairs(lt.nn) do
    if type(class) == "table" and class.class_name and not known["lt.nn." .. name] then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local key = name:lower()
    local op = by_name[key] or by_name[key:gsub("loss$", "")]
    if op then
      list[#list + 1] = {
        name = name, class = "luatape.nn", items = {}, is_op = true,
        head = ("lt.nn.%s(%s)"):format(name, #op.options > 0 and "options" or ""),
        doc = "lt." .. op.name .. (#op.options > 0 and ", with its options," or "") .. " as a module.",
      }
    end
  end
end

--- Everything but the ops, in the order of the files.
---@return luatape.help.entry[]
local function entries()
  local sources, files, list = core.sources(), {}, {}
  for name in pairs(sources) do files[#files + 1] = name end
  table.sort(files, function(a, b)
    local first = "luatape.meta"
    return a == first and b ~= first or a < b and b ~= first
  end)
  rule_entries(list)
  for _, name in ipairs(files) do read_file(sources[name], list) end
  module_entries(list)
  return list
end

return { entries = entries }
