"""The tutor: models of a recipe behind an API and a page, and what students prefer."""
