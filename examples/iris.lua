-- Tells three species of iris apart by four measurements of the flower: reading a table, a split,
-- scaling, training, and how well it goes for each species.
--
--     luatape examples/iris.lua
local lt = require "luatape"
local nn, optim = lt.nn, lt.optim

local epochs = os.getenv "LUATAPE_EXAMPLE_SMALL" and 30 or 60

lt.manual_seed(3)

-- Columns 1 to 4 are lengths in cm, column 5 is the species, 0 to 2. Classes count from 1. The
-- header tells how many rows and columns there are, and then what the species are called.
local here = arg[0]:match "^(.*)[/\\]" or "."
local rows, header = lt.data.csv(here .. "/data/iris.csv")
local species = { table.unpack(header, 3) }
local x = rows[{ {}, { 1, 4 } }]
local labels = rows[{ {}, 5 }]:to "int64" + 1

local train_x, train_y, test_x, test_y = lt.data.split(x, labels, { test = 50, seed = 2 })
local mean, std
train_x, mean, std = lt.data.standardize(train_x)
test_x = lt.data.standardize(test_x, mean, std)

local model = nn.Sequential { nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3) }
local variables = model:parameters()
local optimizer = optim.Adam { lr = 0.01 }
local batches = lt.data.batches { train_x, train_y, batch = 16 }

for epoch = 1, epochs do
  local total = 0
  for xb, yb in batches do
    local tape <close> = lt.tape()
    local loss = lt.cross_entropy(model(xb), yb)
    optimizer:apply_gradients(tape:gradient(loss, variables), variables)
    total = total + loss:item() * #xb
  end
  if epoch % 10 == 0 then print(("epoch %2d  loss %.4f"):format(epoch, total / #train_x)) end
end

local predicted = model(test_x):argmax(2)
local right = predicted:eq(test_y)
print(("\naccuracy on %d flowers it has not seen: %.1f %%\n"):format(
  #test_x, 100 * right:sum():item() / #test_x))

-- Precision: how many of those it calls so are. Recall: how many of those that are it calls so.
print "species      flowers  precision  recall"
for class, name in ipairs(species) do
  local is, called = test_y:eq(class), predicted:eq(class)
  local hits = is:logical_and(called):sum():item()
  print(("%-11s  %7d  %8.1f%%  %5.1f%%"):format(name, is:sum():item(),
    100 * hits / math.max(called:sum():item(), 1), 100 * hits / math.max(is:sum():item(), 1)))
end
