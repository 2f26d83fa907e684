-- Writes the reference into the folder that is the first argument: reference/, one page for each
-- room of the library, and ops.lua, the types of all ops for lua-language-server. What it says is
-- what lt.help says: the registry of ops, what the engine answers to a sample of each, and the
-- comments of the Lua half. A public function without a word, or without a page, is an error.
local lt = require "luatape"
local help = require "luatape.help"
local folder = assert(arg[1], "usage: reference.lua FOLDER")
local here = arg[0]:match "^(.*)[/\\]" or "."

local function write(name, lines)
  while lines[#lines] == "" do lines[#lines] = nil end
  local file = assert(io.open(folder .. "/" .. name, "w"))
  assert(file:write(table.concat(lines, "\n"), "\n"))
  assert(file:close())
end

-- ---- What there is ------------------------------------------------------------------------------

lt.manual_seed(0)
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
    local known = false -- meta.lua may say it first, for editors
    for _, other in ipairs(class.entries) do known = known or other.name == entry.name end
    if not known then table.insert(class.entries, entry) end
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
local methods = {}
for name, f in pairs(tensor_meta.__methods) do -- words of a function are those of the same method
  if lt[name] ~= f then methods[name] = f end
end
check("luatape.tensor", "lt.tensor:", methods)
check("luatape.tape", "lt.tape:", debug.getmetatable(tape).__methods)
tape:close()
check("luatape.optimizer", "lt.optimizer:", debug.getmetatable(lt.optim.SGD()).__methods)
check("luatape.nn.module", "lt.nn.module:", getmetatable(lt.nn.Identity).__index)
table.sort(missing)
if #missing > 0 then error("without documentation: " .. table.concat(missing, ", "), 0) end

-- ---- What stands where --------------------------------------------------------------------------

-- Where each family, function and class stands, and what was left out.
local by_family, by_function, by_class, lost = {}, {}, {}, {}
for _, page in ipairs(help.pages) do
  page.ops, page.entries, page.classes_here = {}, {}, {}
  for name in (page.families or ""):gmatch "%S+" do by_family[name] = page end
  for name in (page.functions or ""):gmatch "%S+" do by_function[name] = page end
  for name in (page.classes or ""):gmatch "%S+" do by_class[name] = page end
end
local function place(page, list, item, what)
  if page then table.insert(page[list], item) else lost[#lost + 1] = what end
end
for _, entry in ipairs(ops) do
  place(by_family[entry.op.family], "ops", entry, "family " .. entry.op.family)
end
for _, entry in ipairs(classes.luatape.entries) do
  place(by_function[entry.name], "entries", entry, "lt." .. entry.name)
end
for _, class in ipairs(classes) do
  if class.name ~= "luatape" and not class.name:find "^luatape%.help" then
    local room = class.name -- classes without a page stand below the nearest one that has
    while room and not by_class[room] do room = room:match "^(.*)%.[%w_]+$" end
    place(room and by_class[room], "classes_here", class, class.name)
  end
end
if #lost > 0 then error("on no page (lua/luatape/help/pages.lua): " .. table.concat(lost, ", "), 0) end

-- ---- Markdown -----------------------------------------------------------------------------------

local lines, index = {}, {}
local function say(...) lines[#lines + 1] = table.concat { ... } end

-- A heading and its anchor on this page, as the web site of the repository makes it.
local anchors
local function heading(level, text)
  local slug = text:lower():gsub("[^%w_ -]", ""):gsub(" ", "-")
  anchors[slug] = (anchors[slug] or -1) + 1
  say(level, " ", text, "\n")
  return anchors[slug] > 0 and slug .. "-" .. anchors[slug] or slug
end

-- The first sentence, for the index.
local function first_sentence(doc)
  local text = doc:gsub("%s+", " ") .. " "
  local at = text:find "[^.][.?;] "
  return at and text:sub(1, text:sub(at + 1, at + 1) == "?" and at + 1 or at) or text:sub(1, -2)
end

local function note(page, name, anchor, doc)
  page.index = page.index or {}
  local text = first_sentence(doc)
  table.insert(page.index, ("- [`%s`](%s.md#%s)%s"):format(name, page.name, anchor,
    text ~= "" and ": " .. text or ""))
end

-- Code, indented by four blanks, and prose that is broken into lines stay as they are.
local function flow(doc)
  return doc:find "\n" and doc or help.wrap(doc, 100, "")
end

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

-- "tape:gradient" of "tape:gradient(target, sources, options)"
local function full_name(entry) return entry.head:match "^[%w_.:]+" end

local function say_entry(page, level, entry)
  note(page, full_name(entry), heading(level, full_name(entry)), entry.doc)
  say("`", entry.head, "`\n")
  if entry.doc ~= "" then say(flow(entry.doc), "\n") end
  say_items(entry.items)
end

-- Inputs and options: prose types, not those of LuaCATS.
local function say_table(entry, options)
  local rows = {}
  for _, item in ipairs(entry.items) do
    if (item.option or false) == options then
      local text = item.text == "" and "required" or item.text:gsub("^default ", "")
      if options and text == "optional" then text = "" end
      rows[#rows + 1] = ("| `%s` | %s | %s |"):format(item.name, item.type, text)
    end
  end
  if #rows == 0 then return end
  say(options and "| option | type | default |" or "| input | takes | |")
  say "| --- | --- | --- |"
  say(table.concat(rows, "\n"), "\n")
end

local function say_op(page, entry)
  note(page, entry.name, heading("##", entry.name), entry.doc)
  local also = entry.op.method and #entry.op.inputs > 0 and not entry.op.inputs[1].list
  say("`", entry.head, "`", also and ", also a method" or "", "\n")
  say(flow(entry.doc), "\n")
  say_table(entry, false)
  say_table(entry, true)
  local facts = help.facts(entry.op)
  for _, line in ipairs(facts.lines) do say("- ", line.label, ": ", line.text) end
  if #facts.errors > 0 then say "- errors:" end
  for _, message in ipairs(facts.errors) do say("  - `", message, "`") end
  if #facts.lines + #facts.errors > 0 then say() end
  if not facts.example then error("the op '" .. entry.name .. "' has no sample", 0) end
  say("```lua\n", facts.example, "\n```\n")
end

local function say_class(page, class)
  local entries, of_ops = {}, {}
  for _, entry in ipairs(class.entries) do
    table.insert(entry.is_op and of_ops or entries, entry)
  end
  if #class.doc + #class.items + #class.entries == 0 then return end
  local name = class.name:gsub("^luatape%.?", "")
  local callable = class.head and class.head:find "%("
  local title = callable and class.head:match "^[%w_.]+" or name
  local anchor = heading("##", title)
  if callable then
    note(page, title, anchor, class.doc[1] or "")
    say("`", class.head, "`\n")
  end
  if #class.doc > 0 then say(table.concat(class.doc, "\n\n"), "\n") end
  say_items(class.items)
  for _, entry in ipairs(entries) do say_entry(page, "###", entry) end
  for _, entry in ipairs(of_ops) do
    note(page, full_name(entry), heading("###", full_name(entry)), entry.doc)
    local op = entry.doc:match "^lt%.([%w_]+)"
    local there = by_family[lt.ops[op].family].name
    say((entry.doc:gsub("^lt%.[%w_]+", ("[%s](%s.md#%s)"):format(op, there, op))), "\n")
  end
end

local reference = "Made by `scripts/reference`; the [index](README.md) has all names.\n"

for _, page in ipairs(help.pages) do
  lines, anchors = {}, {}
  heading("#", page.title)
  say(page.about, " ", reference)
  local listed = {}
  for i, entry in ipairs(page.ops) do listed[i] = ("[%s](#%s)"):format(entry.name, entry.name) end
  if #listed > 0 then say(help.wrap(table.concat(listed, " "), 100, ""), "\n") end
  for _, entry in ipairs(page.ops) do say_op(page, entry) end
  for _, entry in ipairs(page.entries) do say_entry(page, "##", entry) end
  for _, class in ipairs(page.classes_here) do say_class(page, class) end
  write("reference/" .. page.name .. ".md", lines)
  index[#index + 1] = ("## [%s](%s.md)\n\n%s\n\n%s\n"):format(page.title, page.name, page.about,
    table.concat(page.index or {}, "\n"))
end

-- ---- The types, the index -----------------------------------------------------------------------

lines = {}
say("# Types of results\n\nWhich type comes out of which. ", reference)
say(dofile(here .. "/reference_types.lua"))
write("reference/types.md", lines)

lines = {}
say [[
# Reference

Made by `scripts/reference` from the registry of ops, from what the engine answers to a sample of
each, and from the comments of the Lua half. `lt.help(name)` at the prompt and `luatape --help NAME`
in the shell say the same.

Dimensions, indices and labels count from 1; negative ones from the end. Arguments stand in their
order; options come last, in one table by name (`x:sum{dim = 1}`), or in the order shown here
(`x:sum(1)`). Braces in a call hold options and their defaults; a type with `?` may be left out.
An op that is also a method takes its first argument from the left of the colon. A shape is written
2x3; 0-d is a single number; `n` is a size that depends on the values.

[Types of results](types.md) says which dtype comes out of which.
]]
for _, text in ipairs(index) do say(text) end
write("reference/README.md", lines)

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
    local op = entry.op
    if not method or op.method then
      local prose = entry.doc:gsub("%s+", " ")
      say("---@field ", op.name, " fun(", parameters(op, method), "): luatape.tensor, ... ",
        method and "see lt." .. op.name or prose)
    end
  end
  say()
end
write("ops.lua", lines)
