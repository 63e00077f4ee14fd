package phase

// Slot is a plugin's private memory in the exchange; zero at the start.
type Slot struct {
	Int int64
	Ptr any
}

// Chains of different classes meet in one exchange without having been compiled together, so each class has slots of its own.
const (
	RouteSlots = iota
	GroupSlots
	ConsumerSlots
	GlobalSlots
	slotClasses

	slotShift = 16
)

// SlotRange counts the slots that the instances of one chain have reserved.
type SlotRange struct {
	Class int
	Count int
}

// Reserve returns the next slot of the range, for Exchange.Slot.
func (r *SlotRange) Reserve() int {
	r.Count++
	return r.Class<<slotShift | (r.Count - 1)
}

// Slot returns slot i, as reserved with Env.Slot.
func (x *Exchange) Slot(i int) *Slot { return &x.slots[i>>slotShift][i&(1<<slotShift-1)] }

// reserve makes room for the slots of c.
func (x *Exchange) reserve(c *Chain) {
	if c == nil || len(x.slots[c.slots.Class]) >= c.slots.Count {
		return
	}
	s := &x.slots[c.slots.Class]
	for len(*s) < c.slots.Count {
		*s = append(*s, Slot{})
	}
}
