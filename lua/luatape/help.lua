--- lt.help and the reference: one text for both, made from the registry of ops, from what the engine
--- answers to a sample of each, and from the comments above the public functions of the Lua half.
local lt, core = ...
local fail = core.import("luatape.arguments").fail
local comments = core.import "luatape.help.comments"
local ops = core.import "luatape.help.ops"
local pages = core.import "luatape.help.pages"

--- What a piece of documentation is: a head as the user would call it, prose, and a list of
--- arguments, options, fields and results.
---@class luatape.help.entry
---@field name string
---@field class string? whose it is, "luatape.tape"; nil for ops
---@field op table? of an op: its block, an entry of lt.ops
---@field is_class boolean?
---@field is_op boolean? a module that is an op
---@field head string "tape:gradient(target, sources, options)"
---@field doc string lines; those indented by four blanks are code
---@field items { name: string, type: string, text: string, option: boolean? }[]

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

--- What the engine says of an op, below its block. Ops that cannot run here (without LAPACK) have
--- none.
local function add_facts(lines, op)
  local fine, facts = pcall(ops.facts, op)
  if not fine then return end
  for _, line in ipairs(facts.lines) do
    lines[#lines + 1] = "  " .. wrap(line.label .. ": " .. line.text, 78, "    ")
  end
  if #facts.errors > 0 then lines[#lines + 1] = "  errors:" end
  for _, message in ipairs(facts.errors) do
    lines[#lines + 1] = "    " .. wrap(message, 76, "      ")
  end
  if facts.example then
    lines[#lines + 1] = "  example:\n    " .. facts.example:gsub("\n", "\n    ")
  end
end

local function plain(entry)
  local lines = { entry.head }
  if entry.doc ~= "" then lines[#lines + 1] = flow(entry.doc) end
  for _, item in ipairs(entry.items) do
    local text = item.text ~= "" and "; " .. item.text or ""
    lines[#lines + 1] = "    " .. wrap(item.name .. " " .. item.type .. text, 76, "      ")
  end
  if entry.op then add_facts(lines, entry.op) end
  return table.concat(lines, "\n")
end

--- All entries, once somebody has asked.
local known

local function all()
  known = known or { ops.entries(), comments.entries() }
  return known
end

--- The ops of a page, by name.
local function names_of(page)
  local families, names = {}, {}
  for family in (page.families or ""):gmatch "%S+" do families[family] = true end
  for _, entry in ipairs(all()[1]) do
    if families[entry.op.family] then names[#names + 1] = entry.name end
  end
  return names
end

--- The text about an op, function, method or class, as in the reference: print(lt.help "matmul").
--- Names may be given in full ("lt.optim.Adam", "tape:gradient"). Without a name, the names of all
--- ops by the pages of the reference.
---@param name string?
---@return string
function lt.help(name)
  if name == nil then
    local lines = {}
    for _, page in ipairs(pages) do
      local names = names_of(page)
      if #names > 0 then
        lines[#lines + 1] = page.title .. "\n  " .. wrap(table.concat(names, " "), 78, "  ")
      end
    end
    return table.concat(lines, "\n")
  end
  if type(name) ~= "string" then fail("help: takes a name, got a %s", type(name)) end
  local found = {}
  local wanted = name:gsub("^luatape%.", ""):gsub("^lt%.", "")
  for _, list in ipairs(all()) do
    for _, entry in ipairs(list) do
      local full = entry.head:match "^[%w_.:]+":gsub("^lt%.", ""):gsub("^luatape%.", "")
      if entry.name == wanted or full == wanted then found[#found + 1] = plain(entry) end
    end
  end
  if #found == 0 then fail("help: nothing is named '%s'; lt.help() lists the ops", name) end
  return table.concat(found, "\n\n")
end

return {
  ops = ops.entries, facts = ops.facts, entries = comments.entries, pages = pages, wrap = wrap,
}
