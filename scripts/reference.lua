-- Writes reference.md and ops.lua into the folder that is the first argument, from what lt.help
-- knows: the registry of ops and the comments of the Lua half. Run by scripts/reference. A public
-- function without a word is an error.
local lt = require "luatape"
local help = require "luatape.help"
local folder = assert(arg[1], "usage: reference.lua FOLDER")

local function write(name, lines)
  local file = assert(io.open(folder .. "/" .. name, "w"))
  assert(file:write(table.concat(lines, "\n"), "\n"))
  assert(file:close())
end

-- ---- What there is ------------------------------------------------------------------------------

local ops, classes = help.ops(), {}
for _, entry in ipairs(help.entries()) do
  local class = classes[entry.class]
  if not class then
    class = { name = entry.class, doc = {}, items = {}, entries = {} }
    classes[entry.class], classes[#classes + 1] = class, class
  end
  if entry.is_class then
    if entry.doc ~= "" then class.doc[#class.doc + 1] = entry.doc end
    for _, item in ipairs(entry.items) do -- a field that has words of its own needs none here
      local told = false
      for _, other in ipairs(class.entries) do told = told or other.name == item.name end
      if not told then table.insert(class.items, item) end
    end
    class.head = class.head or entry.head
  else
    table.insert(class.entries, entry)
  end
end

-- Every function that a user reaches by a public table has words.
local missing = {}
local function check(class, prefix, t)
  local known = {}
  for _, entry in ipairs(ops) do known[entry.name] = true end
  for _, entry in ipairs(classes[class].entries) do known[entry.name] = true end
  for _, item in ipairs(classes[class].items) do known[item.name] = true end
  for name, value in pairs(t) do
    local public = type(name) == "string" and not name:find "^_"
    local class_here = classes["luatape." .. prefix:match "^lt%.(.*)$" .. tostring(name)]
    if public and (type(value) == "function" or type(value) == "table") and not known[name]
      and not class_here then
      missing[#missing + 1] = prefix .. name
    end
  end
end
check("luatape", "lt.", lt)
check("luatape.nn", "lt.nn.", lt.nn)
check("luatape.nn.init", "lt.nn.init.", lt.nn.init)
check("luatape.optim", "lt.optim.", lt.optim)
check("luatape.data", "lt.data.", lt.data)
local tape, tensor_meta = lt.tape(), debug.getmetatable(lt.ones(1))
local methods = tensor_meta.__methods
for name, f in pairs(lt) do -- words of a function are those of the same method
  if methods[name] == f then methods[name] = nil end
end
check("luatape.tensor", "lt.tensor:", methods)
check("luatape.tape", "lt.tape:", debug.getmetatable(tape).__methods)
tape:close()
check("luatape.optimizer", "lt.optimizer:", debug.getmetatable(lt.optim.SGD()).__methods)
check("luatape.nn.module", "lt.nn.module:", getmetatable(lt.nn.Identity).__index)
table.sort(missing)
if #missing > 0 then error("without documentation: " .. table.concat(missing, ", "), 0) end

-- ---- reference.md -------------------------------------------------------------------------------

local lines = {}
local function say(...) lines[#lines + 1] = table.concat { ... } end

local function say_items(items)
  for _, item in ipairs(items) do
    if item.name == "returns" then
      say("- returns `", item.type, "`", item.text ~= "" and " " .. item.text or "")
    else
      say("- `", item.name, "` `", item.type, "`", item.text ~= "" and ": " .. item.text or "")
    end
  end
  if #items > 0 then say() end
end

-- Code, indented by four blanks, and prose that is broken into lines stay as they are.
local function flow(doc)
  return doc:find "\n" and doc or help.wrap(doc, 100, "")
end

local function say_entry(level, entry)
  say(level, " `", entry.head, "`\n")
  if entry.doc ~= "" then say(flow(entry.doc), "\n") end
  say_items(entry.items)
end

-- Types and defaults of ops are prose, not LuaCATS types.
local function say_op(entry)
  say("### ", entry.name, "\n\n`", entry.head, "`\n\n", flow(entry.doc), "\n")
  for _, item in ipairs(entry.items) do
    say("- `", item.name, "`: ", item.type, item.text ~= "" and "; " .. item.text or "")
  end
  if #entry.items > 0 then say() end
end

local titles = {
  { "luatape", "Functions" }, { "luatape.tensor", "Tensors" }, { "luatape.tape", "The tape" },
  { "luatape.gradients", "Gradients" }, { "luatape.why", "Reasons" }, { "ops", "Ops" },
  { "luatape.nn", "Modules" }, { "luatape.nn.module", "What every module can" },
  { "luatape.nn.init", "Initialisers" }, { "luatape.optim", "Optimizers" },
  { "luatape.optimizer", "What every optimizer can" }, { "luatape.data", "Data" },
}

-- Classes without a title of their own stand below the nearest one that has.
local below, titled = {}, {}
for _, title in ipairs(titles) do titled[title[1]], below[title[1]] = true, {} end
for _, class in ipairs(classes) do
  if not titled[class.name] and not class.name:find "^luatape%.help" then
    local room = class.name
    repeat room = room:match "^(.*)%.[%w_]+$" until titled[room]
    table.insert(below[room], class)
  end
end

local function say_class(class)
  if #class.doc + #class.items + #class.entries == 0 then return end
  local title = class.head:find "[%(]" and class.head or class.name:gsub("^luatape%.", "")
  say("### `", title, "`\n")
  if #class.doc > 0 then say(table.concat(class.doc, "\n\n"), "\n") end
  say_items(class.items)
  for _, entry in ipairs(class.entries) do say_entry("####", entry) end
end

say [[
# Reference

Made by `scripts/reference` from the op registry and the comments of the Lua half; `lt.help(name)`
says the same at the prompt.

Dimensions, indices and labels count from 1; negative ones from the end. Arguments stand in their
order; options come last, in one table by name (`x:sum{dim = 1}`), or in the order shown here
(`x:sum(1)`). Braces in a heading hold options and their defaults; a type with `?` may be left out.
Every op that is also a method takes its first argument from the left of the colon.
]]
for _, title in ipairs(titles) do
  local name, text = table.unpack(title)
  say("## ", text, "\n")
  if name == "ops" then
    local links = {}
    for i, entry in ipairs(ops) do links[i] = ("[%s](#%s)"):format(entry.name, entry.name) end
    say(table.concat(links, " "), "\n")
    for _, entry in ipairs(ops) do say_op(entry) end
  else
    local class = classes[name]
    if #class.doc > 0 then say(table.concat(class.doc, "\n\n"), "\n") end
    say_items(class.items)
    local of_ops = {}
    for _, entry in ipairs(class.entries) do
      if entry.is_op then of_ops[#of_ops + 1] = "- `" .. entry.head .. "`: " .. entry.doc
      else say_entry("###", entry) end
    end
    for _, inner in ipairs(below[name]) do say_class(inner) end
    if #of_ops > 0 then say("### Ops as modules\n\n", table.concat(of_ops, "\n"), "\n") end
  end
end
while lines[#lines] == "" do lines[#lines] = nil end
write("reference.md", lines)

-- ---- ops.lua ------------------------------------------------------------------------------------

local input_types = {
  any = "luatape.tensor|number", float = "luatape.tensor|number", index = "luatape.tensor",
  mask = "luatape.tensor",
}
local option_types = {
  int = "integer", number = "number", bool = "boolean", dim = "integer", index = "integer",
  dims = "integer|integer[]", sizes = "integer|integer[]", ints = "integer|integer[]",
  numbers = "number|number[]", pairs = "integer[]", dtype = "luatape.dtype", text = "string",
}

--- "x: luatape.tensor|number, ...": the inputs, then options by position or in a table.
local function parameters(op, method)
  local list, fields = {}, {}
  for i, input in ipairs(op.inputs) do
    local kind = input.list and "luatape.tensor[]" or input_types[input.accepts]
    if i == 1 and method then kind = "luatape.tensor" end
    list[i] = input.name .. ": " .. kind .. (input.optional and "?" or "")
  end
  for _, option in ipairs(op.options) do
    local words = option.choices and '"' .. option.choices:gsub(" ", '"|"') .. '"'
    local kind = option_types[option.type]
    kind = kind and words and kind .. "|" .. words or kind or words
    fields[#fields + 1] = ("%s: %s?"):format(option.name, kind:find "|" and "(" .. kind .. ")" or kind)
  end
  if #fields > 0 then
    list[#list + 1] = ("...: any|{ %s }"):format(table.concat(fields, ", "))
  end
  return table.concat(list, ", ")
end

lines = {}
say "---@meta luatape\n"
say "-- Made by scripts/reference: the types of all ops, for lua-language-server.\n"
for _, class in ipairs { "luatape", "luatape.tensor" } do
  local method = class == "luatape.tensor"
  say("---@class ", class)
  for _, entry in ipairs(ops) do
    local op = lt.ops[entry.name]
    if not method or op.method then
      local prose = entry.doc:gsub("%s+", " ")
      say("---@field ", op.name, " fun(", parameters(op, method), "): luatape.tensor, ... ",
        method and "see lt." .. op.name or prose)
    end
  end
  say()
end
lines[#lines] = nil
write("ops.lua", lines)
