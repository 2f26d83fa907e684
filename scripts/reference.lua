-- Prints the reference in Markdown: every op of the registry, then the public functions of the Lua
-- half with the comments that stand above them. Run by scripts/reference.
local lt = require "luatape"
local help = require "luatape.help"

local function each_file(folder)
  local pipe = assert(io.popen("find " .. folder .. " -name '*.lua' | LC_ALL=C sort"))
  local files = {}
  for file in pipe:lines() do files[#files + 1] = file end
  pipe:close()
  return files
end

print "# Reference\n"
print "Made by `scripts/reference` from the op registry and the comments of the Lua half.\n"
print "Dimensions, indices and labels count from 1; negative ones from the end.\n"
print "## Ops\n"
local names = {}
for name, op in pairs(lt.ops) do
  if not op.internal then names[#names + 1] = name end
end
table.sort(names)
for _, name in ipairs(names) do
  local op = lt.ops[name]
  print("### " .. name .. "\n")
  print("`" .. help.signature(op) .. "`" .. (op.method and ", also a method" or "") .. "\n")
  print(help.wrap(op.doc, 100, "") .. "\n")
  local facts = {}
  facts[#facts + 1] = op.cuts and "The gradient ends here."
    or op.differentiable and "Differentiable." or "No gradient."
  if op.view then facts[#facts + 1] = "A view where it can be." end
  print(table.concat(facts, " ") .. "\n")
end

print "## Functions and methods of the Lua half\n"
for _, file in ipairs(each_file "lua/luatape") do
  local comment, entries = {}, {}
  for line in io.lines(file) do
    local text = line:match "^%-%-%-%s?(.*)"
    if text then
      comment[#comment + 1] = text
    else
      local head = line:match "^function%s+([%w_.:]+%b())"
      if head and #comment > 0 then
        entries[#entries + 1] = { head = head, comment = comment }
      end
      comment = {}
    end
  end
  if #entries > 0 then
    print("### " .. file:match "^lua/(.*)%.lua$":gsub("/init$", ""):gsub("/", ".") .. "\n")
    for _, entry in ipairs(entries) do
      print("**`" .. entry.head .. "`**\n")
      local prose, tags = {}, {}
      for _, text in ipairs(entry.comment) do
        local tag = text:match "^@(.*)"
        if tag then tags[#tags + 1] = "- `" .. tag .. "`"
        elseif #tags > 0 then tags[#tags] = tags[#tags] .. " " .. text:gsub("^%s+", "")
        else prose[#prose + 1] = text end
      end
      print(table.concat(prose, "\n") .. "\n")
      if #tags > 0 then print(table.concat(tags, "\n") .. "\n") end
    end
  end
end
