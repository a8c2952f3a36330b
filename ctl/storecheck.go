package ctl

import (
	"net/http"

	"glanced/catalog/access"
)

// StoreCheck is POST /admin/stores/{id}/check: what was tried in a store, step by
// step. OK tells that all of it works; Steps is empty where there was nothing to try.
type StoreCheck struct {
	ID    string      `json:"id"`
	OK    bool        `json:"ok"`
	Steps []StoreStep `json:"steps"`
}

// StoreStep is one thing that was tried: write, read or delete; or, where a part of the
// store cannot be used, "use all of it". Error is "" where it works.
type StoreStep struct {
	Name  string `json:"name"`
	Error string `json:"error"`
}

func (s *Server) checkStore(w http.ResponseWriter, r *http.Request, who Identity) error {
	if err := allowAny(who, access.Administer); err != nil {
		return err
	}
	steps, err := s.catalog.CheckStore(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	check := StoreCheck{ID: r.PathValue("id"), OK: true, Steps: []StoreStep{}}
	for _, step := range steps {
		told := StoreStep{Name: step.Name}
		if step.Err != nil {
			told.Error, check.OK = step.Err.Error(), false
		}
		check.Steps = append(check.Steps, told)
	}
	return answerJSON(w, http.StatusOK, check)
}
