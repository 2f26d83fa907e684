--- What optimizers say about gradients that are missing or are another variable's, and about losses
--- that are none. Variables with the same cause share one message.
local lt, core = ...
local arguments = core.import "luatape.arguments"
local variables = core.import "luatape.optim.variables"
local fail, is_tensor = arguments.fail, lt.is_tensor

local messages = {}

--- Reasons that somebody chose: told when asked, not by a warning.
local deliberate <const> = { stopped = true, frozen = true }

--- Other variables that a message names.
local MOST_NAMES <const> = 16
local MOST_REASONS <const> = 4

-- ---- Missing gradients --------------------------------------------------------------------------

--- Adds variable v to the group of those that miss their gradient for its cause, at its line.
local function add(groups, gs, v, label)
  local text, code, why = variables.reason(gs, v, label)
  local key = why and ("%s %s %s"):format(code, why.where, why.op) or ""
  local group = groups[key]
  if not group then
    group = { text = text, code = code, others = {} }
    groups[key], groups[#groups + 1] = group, group
  else
    group.others[#group.others + 1] = v.name or label or "a variable"
  end
end

--- A group's message: the first variable's reason, with the others' names before the advice in
--- its last line.
local function text_of(group)
  local others = group.others
  if #others == 0 then return group.text end
  local more = #others - MOST_NAMES
  local same = ("\n  The same holds for %s%s."):format(
    table.concat(others, ", ", 1, math.min(#others, MOST_NAMES)),
    more > 0 and (" and %d more"):format(more) or "")
  local head, advice = group.text:match "^([^\n]*\n.*)(\n[^\n]*)$"
  return head and head .. same .. advice or group.text .. same
end

--- Tells of variables that a step skipped, each of them once, by warn().
---@param handle userdata the optimizer in C
---@param gs table
---@param list luatape.tensor[] those not told of before
function messages.warn_missing(handle, gs, list)
  if not warn then return end -- a host without it
  local groups = {}
  for _, v in ipairs(list) do
    local _, label = core.optimizer_slot(handle, core.optimizer_find(handle, v))
    add(groups, gs, v, label)
  end
  for _, group in ipairs(groups) do
    if not deliberate[group.code] then warn(core.site(), ": ", text_of(group)) end
  end
end

--- Raises the reasons why no variable has a gradient.
---@param head string begins the message
function messages.raise_missing(head, gs, vars)
  local groups, texts = {}, {}
  variables.each(vars, nil, function(v, _, place) add(groups, gs, v, place) end)
  for i = 1, math.min(#groups, MOST_REASONS) do texts[i] = text_of(groups[i]) end
  if #groups > MOST_REASONS then
    texts[#texts + 1] = ("(and %d reasons more)"):format(#groups - MOST_REASONS)
  end
  fail("%s\n%s", head, table.concat(texts, "\n"))
end

-- ---- Gradients of other variables ---------------------------------------------------------------

--- Does a list hold just these tensors? Other tables are looked through one by one.
local function is_list_of(vars, flat)
  if #vars ~= #flat then return false end
  for i, v in ipairs(flat) do
    if not rawequal(vars[i], v) then return false end
  end
  return true
end

--- Raises an error if gs are gradients of the optimizer's variables, but in another order than vars.
--- Gradients of a copy may be applied to the original; those of one variable not to another.
function messages.check_order(handle, gs, vars)
  local question = type(gs) == "table" and core.question_of(gs)
  if not question or rawequal(question.sources, vars) or type(vars) ~= "table" then return end
  if is_list_of(vars, question.flat) then return end
  local list, places = {}, {}
  variables.each(vars, nil, function(v, _, place)
    list[#list + 1], places[#list + 1] = v, place
  end)
  if #list ~= #question.flat then return end -- refused with the numbers
  for i, v in ipairs(list) do
    local source = question.flat[i]
    if not rawequal(v, source) and core.optimizer_find(handle, source) then
      fail("apply_gradients: at the place of %s stands the gradient of %s; give the variables in the "
        .. "order in which tape:gradient was asked [order]", variables.label(v, places[i]),
        variables.label(source, "another variable"))
    end
  end
end

-- ---- Losses -------------------------------------------------------------------------------------

--- How to write it: "3.2", not 14 digits.
local function number_text(x)
  return math.type(x) == "integer" and tostring(x) or ("%.6g"):format(x)
end

--- Where a tensor was made, for a message; and why it has no history, if that is known.
local function origin_text(t)
  local by, where, code = core.origin(t)
  if not by then return "made where nothing is known any more", "history-dropped" end
  local form = code == "left-tensors" and "made of a number read by %s at %s" or "made by %s at %s"
  return form:format(by, where), code
end

--- Raises an error if what a function returned as its loss cannot be one.
---@param op string begins the message
function messages.check_loss(op, loss)
  if is_tensor(loss) then
    if loss.dtype:find "^float" then return end
    fail("%s: the loss is %s, %s; only floats have gradients [int-dtype]", op, loss.dtype,
      (origin_text(loss)))
  elseif type(loss) ~= "number" then
    fail("%s: the function must return the loss as a tensor, got %s%s", op, type(loss),
      loss == nil and "; is there a return?" or "")
  end
  local by, where, same = core.read_at(loss)
  local reading = not by and ""
    or same and (", read by %s at %s"):format(by, where)
    or ("; numbers were last read by %s at %s"):format(by, where)
  fail("%s: the function must return the loss as a tensor, got number %s%s [left-tensors]\n"
    .. "  A number has no history: return the tensor itself, not its item().", op,
    number_text(loss), reading)
end

--- How the error of a step without gradients begins: with the loss, if it has no history.
---@param op string
---@param tape luatape.tape
---@param loss luatape.tensor
function messages.head(op, tape, loss)
  if (core.records(tape, loss)) then return op end
  return ("%s: the loss%s, %s, has no history on this tape"):format(op,
    loss.name and " '" .. loss.name .. "'" or "", (origin_text(loss)))
end

--- What to write instead, where the loss itself says why it has no history.
local advice = {
  ["outside-tape"] = "Compute it inside the function: its operations are what minimize records.",
  ["no-grad"] = "Compute it outside lt.no_grad.",
  ["left-tensors"] = "Compute with the tensor itself.",
}

--- Raises an error about a function that used no variable at all.
---@param op string begins the message
function messages.raise_no_variables(op, tape, loss)
  local text, code = origin_text(loss)
  local _, older = core.records(tape, loss)
  if older and code then code = "outside-tape" end
  fail("%s: the function used no trainable variable; its loss was %s [%s]%s", op, text,
    code or "unused", advice[code] and "\n  " .. advice[code] or "")
end

return messages
