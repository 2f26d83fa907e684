--- lt.help and the reference: one text for both, made from the registry of ops and from the comments
--- above the public functions of the Lua half (LuaCATS), of which meta.lua has those written in C.
local lt, core = ...
local fail = core.import("luatape.arguments").fail

--- What a piece of documentation is: a head as the user would call it, prose, and a list of
--- arguments, options, fields and results.
---@class luatape.help.entry
---@field name string
---@field class string? whose it is, "luatape.tape"; nil for ops
---@field is_class boolean?
---@field is_op boolean? a module that is an op
---@field head string "tape:gradient(target, sources, options)"
---@field doc string lines; those indented by four blanks are code
---@field items { name: string, type: string, text: string }[]

-- ---- Ops ----------------------------------------------------------------------------------------

local accepts = {
  any = "tensor or number", float = "float tensor or number",
  index = "integer tensor, counted from 1", mask = "bool tensor",
}
local types = {
  int = "integer", number = "number", bool = "boolean", dim = "dimension",
  dims = "dimension, or several in a table", sizes = "sizes: numbers, or one table",
  ints = "integer, or several in a table", numbers = "number, or several in a table",
  pairs = "integers, two for each dimension", index = "position", dtype = "dtype", text = "string",
}

local function value_text(value)
  if math.type(value) then return string.format("%.14g", value) end
  return tostring(value)
end

--- The first of "mean none sum".
local function default_of(option)
  if option.type == "choice" then return '"' .. option.choices:match "%S+" .. '"' end
  if option.default ~= nil and not option.required then return value_text(option.default) end
end

local function option_item(option)
  local default = default_of(option)
  local words = option.choices and '"' .. option.choices:gsub(" ", '", "') .. '"'
  local kind = types[option.type]
  return {
    name = option.name,
    type = kind and words and kind .. ", or " .. words or kind or words,
    text = default and "default " .. default or option.required and "" or "optional",
  }
end

--- Options that a call gives by position, before those in the table: sizes and what is required.
local function count_positional(op)
  for i, option in ipairs(op.options) do
    if not (option.required or option.type == "sizes") then return i - 1 end
  end
  return #op.options
end

---@param op table an entry of lt.ops
---@return luatape.help.entry
local function op_entry(op)
  local arguments, named, items = {}, {}, {}
  for _, input in ipairs(op.inputs) do
    arguments[#arguments + 1] = input.name
    items[#items + 1] = {
      name = input.name, type = input.list and "table of tensors" or accepts[input.accepts],
      text = input.optional and "optional" or "",
    }
  end
  local positional = count_positional(op)
  for i, option in ipairs(op.options) do
    local default = default_of(option)
    if op.option_at > 0 and i == 1 then table.insert(arguments, op.option_at, option.name)
    elseif i <= positional then arguments[#arguments + 1] = option.name
    else named[#named + 1] = option.name .. (default and " = " .. default or "") end
    items[#items + 1] = option_item(option)
  end
  if #named > 0 then arguments[#arguments + 1] = "{" .. table.concat(named, ", ") .. "}" end
  local notes = { op.doc }
  if op.method then notes[#notes + 1] = "Also a method." end
  if op.view then notes[#notes + 1] = "A view where it can be." end
  notes[#notes + 1] = op.cuts and "The gradient ends here."
    or op.differentiable and "Differentiable."
    or #op.inputs > 0 and "No gradient." or nil
  return {
    name = op.name, head = ("lt.%s(%s)"):format(op.name, table.concat(arguments, ", ")),
    doc = table.concat(notes, " "), items = items,
  }
end

---@return luatape.help.entry[]
local function op_entries()
  local list = {}
  for _, op in pairs(lt.ops) do
    if not op.internal then list[#list + 1] = op_entry(op) end
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

-- ---- Comments -----------------------------------------------------------------------------------

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

-- ---- At the prompt ------------------------------------------------------------------------------

--- Breaks text into lines of at most `width` columns; further lines get `indent`.
local function wrap(text, width, indent)
  local lines, line = {}, ""
  for word in text:gmatch "%S+" do
    if #line + #word + 1 > width and line:find "%S" then
      lines[#lines + 1] = line
      line = indent
    end
    line = line .. (line:find "%S" and " " or "") .. word
  end
  lines[#lines + 1] = line
  return table.concat(lines, "\n")
end

--- Prose flows, code and empty lines stay as they are.
local function flow(doc)
  local lines, words = {}, {}
  local function finish()
    if #words > 0 then lines[#lines + 1] = "  " .. wrap(table.concat(words, " "), 78, "  ") end
    words = {}
  end
  for line in (doc .. "\n"):gmatch "(.-)\n" do
    if line:find "^    " or line == "" then
      finish()
      lines[#lines + 1] = line
    else
      words[#words + 1] = line
    end
  end
  finish()
  return table.concat(lines, "\n")
end

local function plain(entry)
  local lines = { entry.head }
  if entry.doc ~= "" then lines[#lines + 1] = flow(entry.doc) end
  for _, item in ipairs(entry.items) do
    local text = item.text ~= "" and "; " .. item.text or ""
    lines[#lines + 1] = "    " .. wrap(item.name .. " " .. item.type .. text, 76, "      ")
  end
  return table.concat(lines, "\n")
end

--- Both lists, once somebody has asked.
local known

--- The text about an op, function, method or class, as in the reference: print(lt.help "matmul").
--- Names may be given in full ("lt.optim.Adam", "tape:gradient"). Without a name, the names of all
--- ops.
---@param name string?
---@return string
function lt.help(name)
  known = known or { op_entries(), entries() }
  if name == nil then
    local names = {}
    for i, entry in ipairs(known[1]) do names[i] = entry.name end
    return (wrap(table.concat(names, " "), 80, ""))
  end
  if type(name) ~= "string" then fail("help: takes a name, got a %s", type(name)) end
  local found = {}
  local wanted = name:gsub("^luatape%.", ""):gsub("^lt%.", "")
  for _, list in ipairs(known) do
    for _, entry in ipairs(list) do
      local full = entry.head:match "^[%w_.:]+":gsub("^lt%.", ""):gsub("^luatape%.", "")
      if entry.name == wanted or full == wanted then found[#found + 1] = plain(entry) end
    end
  end
  if #found == 0 then fail("help: nothing is named '%s'; lt.help() lists the ops", name) end
  return table.concat(found, "\n\n")
end

return { ops = op_entries, entries = entries, wrap = wrap }
