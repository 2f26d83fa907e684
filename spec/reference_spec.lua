-- docs/reference: every example runs and gives the types and shapes that its comment says, every link
-- leads somewhere, every op is there, and lt.help knows each name.
local lt = require "luatape"
local lfs = require "lfs"

local FOLDER = "docs/reference/"

local function read(name)
  local file = assert(io.open(FOLDER .. name))
  local text = file:read "a"
  file:close()
  return text
end

local pages = {}
for name in lfs.dir(FOLDER) do
  if name:find "%.md$" then pages[#pages + 1] = name end
end
table.sort(pages)

---The examples of a page: { code, comment }.
local function examples(text)
  local list = {}
  for block in text:gmatch "\n```lua\n(.-)\n```" do
    local code, comment = block:match "^(.-)%s*%-%->%s*([^\n]+)$"
    list[#list + 1] = { code = code or block, comment = comment }
  end
  return list
end

---"float32 2x3" as a pattern; n stands for any size.
local function pattern_of(comment)
  return "^" .. comment:gsub("%-", "%%-"):gsub("%f[%w]n%f[^%dn]", "%%d+"):gsub("nx", "%%d+x") .. "$"
end

local function describe_results(results)
  local parts = {}
  for i = 1, results.n do
    local t = results[i]
    parts[i] = t.dtype .. " " .. (t.ndim > 0 and table.concat(t.shape, "x") or "0-d")
  end
  return table.concat(parts, ", ")
end

---The names of the headings that ops and functions have.
local function headings(text)
  local list = {}
  for line in text:gmatch "[^\n]+" do
    local name = line:match "^##+ ([%w_.:]+)$"
    if name then list[#list + 1] = name end
  end
  return list
end

---A heading as the web site of a repository links to it.
local function anchors(text)
  local set = {}
  for heading in text:gmatch "\n#+ ([^\n]+)" do
    local slug = heading:lower():gsub("[^%w_ -]", ""):gsub(" ", "-")
    local name, count = slug, 0
    while set[name] do
      count = count + 1
      name = slug .. "-" .. count
    end
    set[name] = true
  end
  return set
end

describe("the reference", function()
  local count = 0

  for _, page in ipairs(pages) do
    it(page .. " has examples that do what they say", function()
      for _, example in ipairs(examples(read(page))) do
        local where = page .. ": " .. example.code
        assert(example.comment, where .. ": says nothing of its result")
        lt.manual_seed(7)
        local f = assert(load("return " .. example.code, "=" .. page, "t", { lt = lt }))
        local results = table.pack(f())
        local found = describe_results(results)
        assert(found:find(pattern_of(example.comment)),
          ("%s: says %s, gives %s"):format(where, example.comment, found))
        count = count + 1
      end
    end)

    it(page .. " has names that lt.help knows", function()
      if page == "README.md" or page == "types.md" then return end
      for _, name in ipairs(headings(read(page))) do
        if name:find "[.:]" or lt.ops[name] then
          assert.is_true(#lt.help(name) > 0, name)
        end
      end
    end)

    it(page .. " has links that lead somewhere", function()
      for target in read(page):gmatch "%]%(([^)]+)%)" do
        local file, anchor = target:match "^([^#]*)#?(.*)$"
        local text = read(file ~= "" and file or page)
        assert(anchor == "" or anchors("\n" .. text)[anchor], page .. ": " .. target)
      end
    end)
  end

  it("has an example of every op", function()
    local known, ops = {}, 0
    for _, page in ipairs(pages) do
      for _, name in ipairs(headings(read(page))) do known[name] = true end
    end
    for name, op in pairs(lt.ops) do
      if not op.internal then
        assert(known[name], name .. " has no place")
        ops = ops + 1
      end
    end
    assert.is_true(count >= ops, count .. " examples of " .. ops .. " ops")
  end)

  it("says what lt.help says", function()
    local text = lt.help "softmax"
    local page = read "activation.md"
    local entry = page:match "\n## softmax\n(.-)\n## "
    assert.matches(entry:match "```lua\n(.-)\n```", text, 1, true)
    for message in entry:gmatch "\n  %- `([^\n]+)`" do
      assert.matches(message:sub(1, 40), text, 1, true)
    end
  end)
end)
