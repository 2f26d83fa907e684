--- lt.help and the reference: what the registry says of each op, as text.
local lt = ...

--- "x, other, {alpha = 1}": how an op is called.
---@param op table an entry of lt.ops
---@return string
local function signature(op)
  local parts, options = {}, {}
  for _, input in ipairs(op.inputs) do
    local name = input.list and "{" .. input.name .. ", ...}" or input.name
    parts[#parts + 1] = input.optional and "[" .. name .. "]" or name
  end
  for _, option in ipairs(op.options) do
    local text = option.name
    if option.type == "choice" then
      text = text .. ' = "' .. option.choices:gsub(" ", '"|"') .. '"'
    elseif option.default ~= nil then
      text = text .. " = " .. string.format(math.type(option.default) and "%.14g" or "%s",
        math.type(option.default) and option.default or tostring(option.default))
    elseif option.required then
      text = text .. " (" .. option.type .. ")"
    else
      text = text .. " (" .. option.type .. ", optional)"
    end
    options[#options + 1] = text
  end
  if op.dim_second then table.insert(parts, 2, op.options[1].name) end
  if #options > 0 then parts[#parts + 1] = "{" .. table.concat(options, ", ") .. "}" end
  return "lt." .. op.name .. "(" .. table.concat(parts, ", ") .. ")"
end

--- Breaks text into lines of at most `width` columns.
local function wrap(text, width, indent)
  local lines, line = {}, indent
  for word in text:gmatch("%S+") do
    if #line + #word + 1 > width and line ~= indent then
      lines[#lines + 1] = line
      line = indent
    end
    line = line .. (line == indent and "" or " ") .. word
  end
  lines[#lines + 1] = line
  return table.concat(lines, "\n")
end

--- What an op computes, as text; without a name, all names. Meant for the prompt:
--- print(lt.help "matmul").
---@param name string?
---@return string
function lt.help(name)
  local names = {}
  for key, op in pairs(lt.ops) do
    if not op.internal then names[#names + 1] = key end
  end
  table.sort(names)
  if name == nil then return wrap(table.concat(names, " "), 80, "") end
  local op = lt.ops[name]
  if not op or op.internal then
    error("help: there is no op named '" .. tostring(name) .. "'; lt.help() lists them", 2)
  end
  local kind = op.method and ", also as a method" or ""
  local gradient = op.cuts and "The gradient ends here."
    or op.differentiable and "It has a gradient, to any order." or "It has no gradient."
  return signature(op) .. kind .. "\n" .. wrap(op.doc .. " " .. gradient, 80, "  ")
end

return { signature = signature, wrap = wrap }
