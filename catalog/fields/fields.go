// Package fields is the one table of what an image has: a row for each field of its
// record and for each that the Images API makes of others. A row says what the field is
// called, what values it takes, who may write it, and how each room shows, keeps, filters
// and sorts it. The API's answers and its schema, the attributes in the mounted tree, the
// command line, the checks of the catalog and the statements of the databases are built
// from it.
//
// Names, types, limits and words are those of Glance's schema of the image
// (glance/api/v2/images.py, get_base_properties) and of its database
// (glance/db/sqlalchemy/models.py); what filters and sorts is what filters and sorts there.
//
// Nothing here changes once the program runs: all of it is safe for concurrent use, and
// what is returned must not be changed.
package fields

import (
	"maps"
	"slices"
	"strings"

	"glanced/catalog/records"
)

// Range is what a filter asks of a number.
type Range = records.Range

// Kind is the type of a field's values.
type Kind int

const (
	_       Kind = iota
	Text         // UTF-8 without NUL
	Integer      // from 0 on
	Boolean
	Time   // UTC; shown in whole seconds, see TimeLayout
	List   // of texts
	Opaque // of a shape of its own, which no door shows as it is
)

// Listing says what a field is to the schema of the image in the API.
type Listing int

const (
	_        Listing = iota
	Base             // one that every image has
	Unlisted         // the same, but the schema does not name it
	Property         // a custom property that is well known: it is kept as any other, but its values are checked
	Internal         // kept in the record and shown at no door: its name can be a custom property's
)

// Writer says who may write a field through the API.
type Writer int

const (
	_             Writer = iota
	Nobody               // the service finds it out; it is read-only
	Service              // the same; the name is kept for the service
	Creator              // who creates the image, and nobody after that
	Editor               // who may change the image
	Administrator        // administrators; who creates an image may give their own project
)

// Showing says when the API shows a field.
type Showing int

const (
	_       Showing = iota
	Always          // null where it has no value
	Present         // only where it has a value
	Never
)

// Filter says how a list is filtered by a field, and what Condition points to.
type Filter int

const (
	_          Filter = iota
	Unfiltered        // a parameter of its name asks for a custom property
	Exact             // the value: a []string of one
	OneOf             // the value, or in:value,value: a []string or a []records.Status
	AllOf             // each time that the parameter is given, one more that must be there: a []string
	Truth             // true or false: a *bool
	Numbers           // NAME, NAME_min, NAME_max: a Range
	Times             // a time, or eq: neq: gt: gte: lt: lte: and a time: a []records.Compare
	Visible           // one of its words, or all: a *records.Scope, see access.Listed
)

// Unsorted is the Sort of a field that lists cannot be ordered by.
const Unsorted = -1

// Storage says where the databases keep a field. The zero value says nothing.
type Storage struct {
	Columns []string // of table images
	Null    bool     // they may be NULL
	Table   string   // a table of its own, with a row for each part
	Made    bool     // nowhere: it is made of others
}

func column(names ...string) Storage   { return Storage{Columns: names} }
func nullable(names ...string) Storage { return Storage{Columns: names, Null: true} }
func parts(table string) Storage       { return Storage{Table: table} }

var made = Storage{Made: true}

// Field is one row. What is left out of a row is not decided, save where the comment
// says what zero means; the package's test finds that.
type Field struct {
	Name        string // of the Images API
	Listing     Listing
	Description string // in the schema
	Kind        Kind
	Null        bool // null is a value of it, beside those of Kind

	// What its values may be.
	Words     []string // one of these; nil = any
	Pattern   string   // a regular expression for texts, in the schema's language; "" = any
	Shape     string   // what Pattern asks for, in words
	MaxLength int      // of a text, or of each in a List, characters; 0 = no limit of its own
	MaxItems  int      // of a List; 0 = not for users to fill
	Max       int64    // of an Integer that users write

	Writer  Writer
	Fixed   bool // not written any more once the image has data
	Showing Showing
	Xattr   []string // names in the mounted tree, after user.glance.; empty = none, nil = not decided
	Storage Storage
	Filter  Filter
	Param   string // the parameter of a list that filters by it; "" = Name
	Sort    int    // its place among the sort keys, from 1 on, as Glance names them; or Unsorted

	// For people.
	Bytes bool // it is a number of bytes
	Link  bool // it is of the API's plumbing: people see it where they ask for it

	at        func(*records.Image) any // where it is in the record; nil = it is made of others
	condition func(*records.Query) any // where its filter is in a query
	read      func(*records.Image) Value
}

// Condition is where q says how the list is filtered by f, a pointer to what its Filter
// says; nil where there is no such filter.
func (f *Field) Condition(q *records.Query) any {
	if f.condition == nil {
		return nil
	}
	return f.condition(q)
}

// Writable tells whether anybody may write f through the API.
func (f *Field) Writable() bool { return f.Writer == Creator || f.Edited() }

// Edited tells whether f may be written after the image was created.
func (f *Field) Edited() bool { return f.Writer == Editor || f.Writer == Administrator }

// Base tells whether f is one that every image has: no custom property can have its name.
func (f *Field) Base() bool { return f.Listing == Base || f.Listing == Unlisted }

// Matches tells whether text is of f's Pattern.
func (f *Field) Matches(text string) bool { return f.Pattern != uuidPattern || IsID(text) }

// The table, sorted out once.
var (
	every  = table()
	named  = slices.DeleteFunc(slices.Clone(every), func(f *Field) bool { return f.Listing == Internal })
	byName = func() map[string]*Field {
		m := map[string]*Field{}
		for _, f := range named {
			m[f.Name] = f
		}
		return m
	}()
	shown = func() []*Field {
		all := slices.DeleteFunc(slices.Clone(named), func(f *Field) bool { return !f.Base() || f.Showing == Never })
		slices.SortFunc(all, func(a, b *Field) int { return strings.Compare(a.Name, b.Name) })
		return all
	}()
	stored     = slices.DeleteFunc(slices.Clone(every), func(f *Field) bool { return len(f.Storage.Columns) == 0 })
	parameters = func() map[string]Parameter {
		m := map[string]Parameter{}
		for _, f := range named {
			f.addParameters(m)
		}
		return m
	}()
	sortKeys = func() (names []string) {
		keys := slices.DeleteFunc(slices.Clone(named), func(f *Field) bool { return f.Sort == Unsorted })
		slices.SortFunc(keys, func(a, b *Field) int { return a.Sort - b.Sort })
		for _, f := range keys {
			names = append(names, f.Name)
		}
		return names
	}()
)

// All are the fields that have a name in the API, in the order in which people are shown
// them; the well-known properties come last.
func All() []*Field { return named }

// Every is all rows, the Internal ones too.
func Every() []*Field { return every }

// Shown are the fields that the API shows of an image, by name.
func Shown() []*Field { return shown }

// Stored are the fields that have columns in table images.
func Stored() []*Field { return stored }

// Find is the field of this name in the API, or the well-known property.
func Find(name string) (f *Field, ok bool) {
	f, ok = byName[name]
	return f, ok
}

// IsBase tells whether name is a field that every image has, and not a custom property.
func IsBase(name string) bool {
	f, ok := byName[name]
	return ok && f.Base()
}

// ReservedPrefix begins the names of what the service itself writes or says.
const ReservedPrefix = "os_glance_"

// Reserved tells whether name is kept for the service: no client may set it, though it
// need not be a field. Glance calls these so: they are columns of its tables.
func Reserved(name string) bool {
	f, ok := byName[name]
	return ok && f.Writer == Service || strings.HasPrefix(name, ReservedPrefix) || slices.Contains(reserved, name)
}

var reserved = []string{"location", "deleted", "deleted_at"}

// Bound is what a filter of Numbers asks for.
type Bound int

const (
	Is Bound = iota
	AtLeast
	AtMost
)

// Parameter is a parameter of a list that filters by a field.
type Parameter struct {
	Field *Field
	Bound Bound // of Numbers
}

func (f *Field) addParameters(to map[string]Parameter) {
	name := f.Param
	if name == "" {
		name = f.Name
	}
	switch f.Filter {
	case Unfiltered:
		return
	case Numbers:
		to[name+"_min"] = Parameter{f, AtLeast}
		to[name+"_max"] = Parameter{f, AtMost}
	}
	to[name] = Parameter{Field: f}
}

// Filtered is the field that the list's parameter of this name filters by.
func Filtered(parameter string) (p Parameter, ok bool) {
	p, ok = parameters[parameter]
	return p, ok
}

// Filters are the names of the parameters that filter by a field.
func Filters() []string { return slices.Sorted(maps.Keys(parameters)) }

// ListParameters are the other parameters of a list that mean no custom property.
var ListParameters = []string{"limit", "marker", "sort", "sort_key", "sort_dir", "member_status", "deleted", "changes-since"}

// SortKeys are the names of the fields that lists can be ordered by, as Glance names them.
func SortKeys() []string { return sortKeys }
