from captchalab.project import Project


def test_the_project_is_found_from_any_folder_below(tmp_path):
    (tmp_path / "params.yaml").touch()
    (tmp_path / "dvc.yaml").touch()
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert Project.find(below).root == tmp_path.resolve()
