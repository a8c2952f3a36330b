package swift

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"glanced/backends/setting"
)

// maxConfigFile bounds Glance's file of references, bytes.
const maxConfigFile = 1 << 20

// references are the accounts of config_file by their names.
func (c Config) references() (map[string]login, error) {
	if c.ConfigFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(c.ConfigFile)
	if err != nil {
		return nil, fmt.Errorf("config_file: %w", err)
	}
	if len(text) > maxConfigFile {
		return nil, fmt.Errorf("config_file: %s is longer than 1 MiB", c.ConfigFile)
	}
	sections, err := parseINI(string(text))
	if err != nil {
		return nil, fmt.Errorf("config_file: %s: %w", c.ConfigFile, err)
	}
	logins := map[string]login{}
	for name, section := range sections {
		l, err := reference(section)
		if err != nil {
			return nil, fmt.Errorf("config_file: %s: [%s]: %w", c.ConfigFile, name, err)
		}
		logins[name] = c.finish(l)
	}
	return logins, nil
}

// reference reads one section as Glance does (glance_store, _drivers/swift/utils.py).
func reference(section map[string]string) (login, error) {
	l := login{url: section["auth_address"], user: section["user"], key: setting.Secret(section["key"]),
		userDomain:    domain{section["user_domain_name"], section["user_domain_id"]},
		projectDomain: domain{section["project_domain_name"], section["project_domain_id"]}}
	if l.url == "" || l.user == "" || l.key == "" {
		return l, errors.New("want auth_address, user and key")
	}
	if !strings.Contains(l.url, "://") {
		l.url = "https://" + l.url
	}
	if _, err := parseAuthURL(l.url); err != nil {
		return l, fmt.Errorf("auth_address: %w", err)
	}
	if text := section["auth_version"]; text != "" {
		version, err := strconv.Atoi(text)
		if err != nil || version < 1 || version > 3 {
			return l, fmt.Errorf("auth_version = %q: want 1, 2 or 3", text)
		}
		l.version = version
	}
	return l, nil
}

// parseINI reads a file as Python's configparser does, as far as Glance's references
// need it: sections of key = value or key: value on one line, comments, quotes, and %%
// for a percent sign. The keys of [DEFAULT] are those of every section. Errors name the
// line, and never what is on it.
func parseINI(text string) (map[string]map[string]string, error) {
	all, sections := map[string]string{}, map[string]map[string]string{}
	var section map[string]string
	for i, line := range strings.Split(text, "\n") {
		bad := func(why string) error { return fmt.Errorf("line %d: %s", i+1, why) }
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if line[0] == '[' {
			name, rest, ok := strings.Cut(line[1:], "]")
			if !ok || name == "" || rest != "" {
				return nil, bad("want [name]")
			}
			if name == "DEFAULT" {
				section = all
				continue
			}
			if sections[name] != nil {
				return nil, bad("this section is there already")
			}
			section = map[string]string{}
			sections[name] = section
			continue
		}
		at := strings.IndexAny(line, "=:")
		if section == nil || at < 1 {
			return nil, bad("want [name], then key = value")
		}
		value, err := unquote(strings.TrimSpace(line[at+1:]))
		if err != nil {
			return nil, bad(err.Error())
		}
		section[strings.ToLower(strings.TrimSpace(line[:at]))] = value
	}
	for _, section := range sections {
		for key, value := range all {
			if _, ok := section[key]; !ok {
				section[key] = value
			}
		}
	}
	return sections, nil
}

func unquote(value string) (string, error) {
	plain := strings.ReplaceAll(value, "%%", "")
	if strings.Contains(plain, "%") {
		return "", errors.New("a percent sign is written %%")
	}
	value = strings.ReplaceAll(value, "%%", "%")
	if value == "" || value[0] != '"' && value[0] != '\'' {
		return value, nil
	}
	if len(value) == 1 || value[len(value)-1] != value[0] {
		return "", errors.New("a quote is not closed")
	}
	return value[1 : len(value)-1], nil
}
