package ctl

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"glanced/catalog"
	"glanced/catalog/access"
	"glanced/catalog/fields"
)

func isText(s string) bool { return utf8.ValidString(s) }

// listQuery reads the parameters of a list into the catalog's terms. Of a filter
// given twice the last counts, except tag, sort_key and sort_dir. An unknown name is a custom
// property. deleted and member_status are checked and otherwise without effect,
// as there are neither deleted images nor members to list.
func listQuery(params []param, who Identity) (catalog.Query, error) {
	hidden := false
	q := catalog.Query{
		Scope:  access.Sees(who),
		Among:  access.Listed(who, ""),
		Hidden: &hidden,
		Limit:  defaultLimit,
	}
	order := sorting{}
	for _, p := range params {
		if err := readFilter(&q, &order, p, who); err != nil {
			return q, err
		}
	}
	var err error
	q.Sort, err = order.keys()
	return q, err
}

// readFilter reads one parameter: one of fields.ListParameters, a filter by a field, or
// the name of a custom property.
func readFilter(q *catalog.Query, order *sorting, p param, who Identity) (err error) {
	switch p.name {
	case "limit":
		q.Limit, err = parseLimit(p.value)
	case "marker":
		q.Marker = p.value
	case "sort":
		order.sort = append(order.sort, p.value)
	case "sort_key":
		order.oldKeys = append(order.oldKeys, p.value)
	case "sort_dir":
		order.oldDirs = append(order.oldDirs, p.value)
	case "member_status":
		if !slices.Contains([]string{"pending", "accepted", "rejected", "all"}, p.value) {
			return fail(http.StatusBadRequest, "Invalid status: %s", shorten(p.value))
		}
	case "deleted":
	case "changes-since":
		return fail(http.StatusBadRequest, "The \"changes-since\" filter is no longer available on v2.")
	default:
		if by, ok := fields.Filtered(p.name); ok {
			return readCondition(q, by, p, who)
		}
		if q.Properties == nil {
			q.Properties = map[string]string{}
		}
		q.Properties[p.name] = p.value
	}
	return err
}

// readCondition reads p, which filters by a field, into the field's place in q.
func readCondition(q *catalog.Query, by fields.Parameter, p param, who Identity) (err error) {
	switch want := by.Field.Condition(q).(type) {
	case *[]string:
		switch by.Field.Filter {
		case fields.OneOf:
			*want, err = oneOf(p.value)
		case fields.AllOf:
			*want = append(*want, p.value)
		default:
			*want = []string{p.value}
		}
	case *[]catalog.Status:
		*want, err = statuses(p.value)
	case **bool:
		*want, err = truth(p)
	case *fields.Range:
		switch by.Bound {
		case fields.AtLeast:
			want.Min, err = amount(p.value)
		case fields.AtMost:
			want.Max, err = amount(p.value)
		default:
			want.Is, err = amount(p.value)
		}
	case *[]catalog.Compare:
		*want, err = comparisons(p)
	case **catalog.Scope:
		if p.value != "all" && !slices.Contains(by.Field.Words, p.value) {
			return fail(http.StatusBadRequest, "Invalid visibility value: %s", shorten(p.value))
		}
		*want = access.Listed(who, p.value)
	default:
		panic("no list can be filtered by " + p.name)
	}
	return err
}

// oneOf reads "value" or "in:a,b,c". In a list, a value may stand in double
// quotes, in which a comma is part of it and \" is a quote.
func oneOf(value string) ([]string, error) {
	list, ok := strings.CutPrefix(value, "in:")
	if !ok {
		return []string{value}, nil
	}
	var all []string
	for rest := list; ; {
		var item string
		if quoted, ok := strings.CutPrefix(rest, `"`); ok {
			var b strings.Builder
			i := 0
			for ; i < len(quoted) && quoted[i] != '"'; i++ {
				if quoted[i] == '\\' && i+1 < len(quoted) && quoted[i+1] == '"' {
					i++
				}
				b.WriteByte(quoted[i])
			}
			if i == len(quoted) {
				return nil, fail(http.StatusBadRequest, "Invalid filter value %s. The quote is not closed.", shorten(list))
			}
			item, rest = b.String(), quoted[i+1:]
			if rest != "" && rest[0] != ',' {
				return nil, fail(http.StatusBadRequest, "Invalid filter value %s. There is no comma after closing quotation mark.", shorten(list))
			}
		} else {
			end := strings.IndexByte(rest, ',')
			if end < 0 {
				end = len(rest)
			}
			item, rest = rest[:end], rest[end:]
			if strings.Contains(item, `"`) {
				return nil, fail(http.StatusBadRequest, "Invalid filter value %s. There is no comma before opening quotation mark.", shorten(list))
			}
		}
		all = append(all, item)
		if rest == "" {
			return all, nil
		}
		rest = rest[1:]
	}
}

func statuses(value string) ([]catalog.Status, error) {
	words, err := oneOf(value)
	var all []catalog.Status
	for _, w := range words {
		if w == string(catalog.Deleted) || w == string(catalog.PendingDelete) {
			w = "" // no image's status: the catalog still has deleted ones, the API has none
		}
		all = append(all, catalog.Status(w))
	}
	return all, err
}

func truth(p param) (*bool, error) {
	switch strings.ToLower(p.value) {
	case "true":
		v := true
		return &v, nil
	case "false":
		v := false
		return &v, nil
	}
	return nil, fail(http.StatusBadRequest, "Invalid value '%s' for '%s' filter. Valid values are 'true' or 'false'.", shorten(p.value), p.name)
}

func amount(value string) (*int64, error) {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return nil, fail(http.StatusBadRequest, "Unable to filter on a range with a non-numeric value.")
	}
	return &n, nil
}

var compareOps = []string{"eq", "neq", "gt", "gte", "lt", "lte"}

// timeLayouts is ISO 8601 as far as clients write it; without a zone it is UTC.
var timeLayouts = []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02"}

// comparisons reads "op:time" or "time", which is eq.
func comparisons(p param) ([]catalog.Compare, error) {
	if t, ok := parseTime(p.value); ok {
		return bySecond("eq", t), nil
	}
	op, text, found := strings.Cut(p.value, ":")
	if found && !slices.Contains(compareOps, op) {
		return nil, fail(http.StatusBadRequest, "Unable to filter on a unknown operator.")
	}
	t, ok := parseTime(text)
	if !ok {
		return nil, fail(http.StatusBadRequest, "Bad \"%s\" query filter format. Use ISO 8601 DateTime notation.", p.name)
	}
	return bySecond(op, t), nil
}

// bySecond compares as if times had whole seconds, as clients are shown them: a
// time taken from one answer and sent back as a filter means that image.
func bySecond(op string, t time.Time) []catalog.Compare {
	from := t.Truncate(time.Second)
	next := from.Add(time.Second)
	if !t.Equal(from) && (op == "gte" || op == "lt") {
		from = next // the first whole second that is not before t
	}
	switch op {
	case "eq":
		return []catalog.Compare{{Op: "gte", Time: from}, {Op: "lt", Time: next}}
	case "gt":
		return []catalog.Compare{{Op: "gte", Time: next}}
	case "gte":
		return []catalog.Compare{{Op: "gte", Time: from}}
	case "lt":
		return []catalog.Compare{{Op: "lt", Time: from}}
	case "lte":
		return []catalog.Compare{{Op: "lt", Time: next}}
	}
	return []catalog.Compare{{Op: op, Time: t}} // neq: all but one instant
}

func parseTime(text string) (time.Time, bool) {
	for _, layout := range timeLayouts {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}
